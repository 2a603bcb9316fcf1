-- Times are RFC 3339 text in UTC and of one width in both databases, so text order is time order.
CREATE TABLE tasks (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner_id    BIGINT NOT NULL,
    title       TEXT   NOT NULL,
    description TEXT,
    status      TEXT   NOT NULL,
    priority    TEXT   NOT NULL,
    due_date    TEXT   COLLATE "C",
    version     BIGINT NOT NULL DEFAULT 1,
    created_at  TEXT   COLLATE "C" NOT NULL,
    updated_at  TEXT   COLLATE "C" NOT NULL
);

CREATE INDEX tasks_owner_created ON tasks (owner_id, created_at);
CREATE INDEX tasks_owner_status ON tasks (owner_id, status);

CREATE TABLE idempotency_keys (
    owner_id   BIGINT NOT NULL,
    key        TEXT   NOT NULL,
    request    TEXT   NOT NULL,
    answer     TEXT   NOT NULL DEFAULT '',
    created_at TEXT   COLLATE "C" NOT NULL,
    PRIMARY KEY (owner_id, key)
);

-- SQLite has this function; with it in either domain's database too, one SQL text serves both databases.
CREATE OR REPLACE FUNCTION json_quote(value TEXT) RETURNS TEXT
    LANGUAGE SQL IMMUTABLE PARALLEL SAFE
    AS $$ SELECT COALESCE(CAST(to_json(value) AS TEXT), 'null') $$;
