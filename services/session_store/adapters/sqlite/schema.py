"""The tables, as migrations. Append to MIGRATIONS; never change one that was released.

Rows hang together by small integer keys, since they are written on every append and ids are 36 bytes. `tenant` stands on every row that
is looked up or listed by it; the others are reached only through the key of a row that was.
Events are kept as batches, one row per append: `data` is what a follower is sent. `number` is AUTOINCREMENT, so it is never given twice,
even when the newest rows are deleted: followers rely on it. There is one writer at a time, so its order is the order of commits.
"""

from __future__ import annotations

_V1 = """
CREATE TABLE sessions (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    title TEXT NOT NULL,
    metadata TEXT NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    message_count INTEGER NOT NULL,
    active_run TEXT NOT NULL,
    version INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX sessions_by_id ON sessions (tenant, id);
CREATE INDEX sessions_by_age ON sessions (tenant, created_at, id);

CREATE TABLE messages (
    key INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    position INTEGER NOT NULL,
    id TEXT NOT NULL,
    run INTEGER NOT NULL,
    created_at REAL NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX messages_by_position ON messages (session, position);

CREATE TABLE held_messages (
    run INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    id TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (run, ordinal)
) STRICT;

CREATE TABLE runs (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    session INTEGER NOT NULL,
    session_id TEXT NOT NULL,
    state INTEGER NOT NULL,
    place INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    driver TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    created_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    details BLOB NOT NULL,
    usage BLOB NOT NULL,
    turns INTEGER NOT NULL,
    fault BLOB NOT NULL,
    output_message_id TEXT NOT NULL,
    input_digest TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX runs_by_id ON runs (tenant, id);
CREATE INDEX runs_by_age ON runs (tenant, created_at, id);
CREATE INDEX runs_by_session ON runs (session, created_at, id);
CREATE INDEX runs_waiting ON runs (session, key) WHERE place = 0 AND state < 3;
CREATE INDEX runs_unassigned ON runs (key) WHERE driver = '' AND place > 0 AND state < 3;
CREATE INDEX runs_by_driver ON runs (driver, key) WHERE driver > '' AND state < 3;

CREATE TABLE batches (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    session INTEGER NOT NULL,
    run INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX batches_by_run ON batches (run, last);
CREATE INDEX batches_by_session ON batches (session, number);
CREATE INDEX batches_by_tenant ON batches (tenant, number);

CREATE TABLE requests (
    tenant TEXT NOT NULL,
    method TEXT NOT NULL,
    request_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    outcome TEXT NOT NULL,
    session INTEGER NOT NULL,
    expires_at REAL NOT NULL,
    PRIMARY KEY (tenant, method, request_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_by_expiry ON requests (expires_at);
CREATE INDEX requests_by_session ON requests (session);

CREATE TABLE usage (
    tenant TEXT NOT NULL,
    session INTEGER NOT NULL,
    run INTEGER NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    cost_nano_usd INTEGER NOT NULL,
    cost_known INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    PRIMARY KEY (tenant, session, run, provider, model)
) STRICT, WITHOUT ROWID;

CREATE TABLE leases (
    driver TEXT PRIMARY KEY,
    stream TEXT NOT NULL,
    expires_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
"""

MIGRATIONS = (_V1,)
