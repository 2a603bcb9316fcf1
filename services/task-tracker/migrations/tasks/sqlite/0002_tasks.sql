CREATE TABLE tasks (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    owner_id    INTEGER NOT NULL,
    title       TEXT    NOT NULL,
    description TEXT,
    status      TEXT    NOT NULL,
    priority    TEXT    NOT NULL,
    due_date    TEXT,
    version     INTEGER NOT NULL DEFAULT 1,
    created_at  TEXT    NOT NULL,
    updated_at  TEXT    NOT NULL
);

CREATE INDEX tasks_owner_created ON tasks (owner_id, created_at);
CREATE INDEX tasks_owner_status ON tasks (owner_id, status);

CREATE TABLE idempotency_keys (
    owner_id   INTEGER NOT NULL,
    key        TEXT    NOT NULL,
    request    TEXT    NOT NULL,
    answer     TEXT    NOT NULL DEFAULT '',
    created_at TEXT    NOT NULL,
    PRIMARY KEY (owner_id, key)
) WITHOUT ROWID;
