"""The tables, as migrations. Append to MIGRATIONS; never change one that was released.

Rows hang together by small integer keys, since they are written on every append and ids are 36 bytes. `tenant` stands on every row that
is looked up or listed by it; the others are reached only through the key of a row that was.
Events are kept as batches, one row per append: `data` is what a follower is sent. `number` is AUTOINCREMENT, so it is never given twice,
even when the newest rows are deleted: followers rely on it. There is one writer at a time, so its order is the order of commits.
A deleted session leaves every look-up at once, by a tenant that nobody is (`/` and its key), and waits in `hidden` until its rows are
swept; what it counted lives on in `departed` and `departed_usage`, by tenant and day. An import waits there too, until it is whole.
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

_V2 = """
ALTER TABLE sessions ADD COLUMN forked_from TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN forked_at INTEGER NOT NULL DEFAULT 0;
CREATE INDEX sessions_by_origin ON sessions (tenant, forked_from, created_at) WHERE forked_from > '';

ALTER TABLE runs ADD COLUMN rank REAL NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN ends_by REAL;
UPDATE runs SET rank = created_at WHERE state < 3;
UPDATE runs SET ends_by = created_at WHERE place = 2 AND state < 3;
CREATE INDEX runs_due ON runs (tenant, rank, key) WHERE driver = '' AND place = 1 AND state = 1;
CREATE INDEX runs_by_end ON runs (ends_by, key) WHERE driver = '' AND state = 1;
CREATE INDEX runs_orphaned ON runs (key) WHERE driver = '' AND state = 2;

CREATE TABLE loads (
    tenant TEXT PRIMARY KEY,
    running INTEGER NOT NULL,
    waiting INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO loads SELECT tenant, sum(state = 2), sum(state = 1) FROM runs WHERE state < 3 GROUP BY tenant;
INSERT INTO loads SELECT '*', coalesce(sum(running), 0), coalesce(sum(waiting), 0) FROM loads;
CREATE TRIGGER runs_opened AFTER INSERT ON runs WHEN new.state < 3 BEGIN
    INSERT INTO loads VALUES (new.tenant, new.state = 2, new.state = 1), ('*', new.state = 2, new.state = 1)
        ON CONFLICT DO UPDATE SET running = running + excluded.running, waiting = waiting + excluded.waiting;
END;
CREATE TRIGGER runs_moved AFTER UPDATE OF state ON runs WHEN new.state <> old.state BEGIN
    UPDATE loads SET running = running + (new.state = 2) - (old.state = 2), waiting = waiting + (new.state = 1) - (old.state = 1)
        WHERE tenant IN (new.tenant, '*');
    DELETE FROM loads WHERE tenant = new.tenant AND running = 0 AND waiting = 0;
END;
CREATE TRIGGER runs_removed AFTER DELETE ON runs WHEN old.state < 3 BEGIN
    UPDATE loads SET running = running - (old.state = 2), waiting = waiting - (old.state = 1) WHERE tenant IN (old.tenant, '*');
END;
"""

_V3 = """
CREATE TABLE outbox (
    shard INTEGER PRIMARY KEY,
    number INTEGER NOT NULL,
    owner TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    expires_at REAL NOT NULL,
    heir TEXT NOT NULL
) STRICT;
"""

_V4 = """
ALTER TABLE runs ADD COLUMN messages INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN tool_calls INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN tool_executions INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN tool_failures INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN tool_unknown INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN tool_micros INTEGER NOT NULL DEFAULT 0;

CREATE TABLE hidden (
    session INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    until REAL NOT NULL
) STRICT;
CREATE INDEX hidden_by_end ON hidden (until);

CREATE TABLE departed (
    tenant TEXT NOT NULL,
    day INTEGER NOT NULL,
    state INTEGER NOT NULL,
    runs INTEGER NOT NULL,
    turns INTEGER NOT NULL,
    events INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    tool_calls INTEGER NOT NULL,
    tool_executions INTEGER NOT NULL,
    tool_failures INTEGER NOT NULL,
    tool_unknown INTEGER NOT NULL,
    tool_micros INTEGER NOT NULL,
    run_micros INTEGER NOT NULL,
    queued_micros INTEGER NOT NULL,
    first_opened_at REAL NOT NULL,
    last_ended_at REAL,
    PRIMARY KEY (tenant, day, state)
) STRICT, WITHOUT ROWID;

CREATE TABLE departed_usage (
    tenant TEXT NOT NULL,
    day INTEGER NOT NULL,
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
    PRIMARY KEY (tenant, day, provider, model)
) STRICT, WITHOUT ROWID;
INSERT INTO departed_usage SELECT tenant, 0, provider, model, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
    reasoning_tokens, cost_nano_usd, cost_known, calls FROM usage WHERE session = 0;
DELETE FROM usage WHERE session = 0;
"""

_V5 = """
ALTER TABLE runs ADD COLUMN wakes_at REAL;
CREATE INDEX runs_resting ON runs (wakes_at, key) WHERE state = 6;
CREATE INDEX runs_rested ON runs (tenant, created_at, id) WHERE wakes_at IS NOT NULL;
DROP TRIGGER runs_moved;
CREATE TRIGGER runs_moved AFTER UPDATE OF state ON runs WHEN new.state <> old.state BEGIN
    INSERT INTO loads VALUES
        (new.tenant, (new.state = 2) - (old.state = 2), (new.state = 1) - (old.state = 1)),
        ('*', (new.state = 2) - (old.state = 2), (new.state = 1) - (old.state = 1))
        ON CONFLICT DO UPDATE SET running = running + excluded.running, waiting = waiting + excluded.waiting;
    DELETE FROM loads WHERE tenant = new.tenant AND running = 0 AND waiting = 0;
END;
"""

MIGRATIONS = (_V1, _V2, _V3, _V4, _V5)
