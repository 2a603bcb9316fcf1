-- Times are RFC 3339 text in UTC and of one width in both databases, so text order is time order.
CREATE TABLE users (
    id            BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email         TEXT    NOT NULL UNIQUE,
    username      TEXT    NOT NULL UNIQUE,
    password_hash TEXT    NOT NULL,
    full_name     TEXT,
    is_active     BOOLEAN NOT NULL DEFAULT TRUE,
    is_superuser  BOOLEAN NOT NULL DEFAULT FALSE,
    created_at    TEXT    COLLATE "C" NOT NULL,
    updated_at    TEXT    COLLATE "C" NOT NULL
);

-- SQLite has this function; with it in either domain's database too, one SQL text serves both databases.
CREATE OR REPLACE FUNCTION json_quote(value TEXT) RETURNS TEXT
    LANGUAGE SQL IMMUTABLE PARALLEL SAFE
    AS $$ SELECT COALESCE(CAST(to_json(value) AS TEXT), 'null') $$;
