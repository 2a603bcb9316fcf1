-- Times are RFC 3339 text in UTC and of one width in both databases, so text order is time order.
CREATE TABLE users (
    id            BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email         TEXT    NOT NULL CONSTRAINT users_email UNIQUE,
    username      TEXT    NOT NULL CONSTRAINT users_username UNIQUE,
    password_hash TEXT    NOT NULL,
    full_name     TEXT,
    is_active     BOOLEAN NOT NULL DEFAULT TRUE,
    is_superuser  BOOLEAN NOT NULL DEFAULT FALSE,
    created_at    TEXT    COLLATE "C" NOT NULL,
    updated_at    TEXT    COLLATE "C" NOT NULL
);
