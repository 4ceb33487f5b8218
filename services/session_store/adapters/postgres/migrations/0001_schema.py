"""Sessions, runs and their logs.

Every row of a tenant says whose it is, and row-level security holds for the owner too: who does not say on whose behalf it reads sees
nothing. `counters` is one row, locked by every transaction that writes before it touches anything else: so transactions cannot lock each
other out, and numbers and keys grow in the order of commits over all replicas. Rows that are updated often have room beside them.
"""

from chassis.migrations import run_script

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes all tables."""
    run_script(SQL)


SQL = """
CREATE TABLE counters (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    last_number bigint NOT NULL,
    last_key bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO counters (last_number, last_key) VALUES (0, 0);

CREATE TABLE session_store_writers (
    id text PRIMARY KEY,
    fence bigint NOT NULL,
    token bigint NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 10);

CREATE TABLE sessions (
    key bigint PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    title text NOT NULL,
    metadata jsonb NOT NULL,
    created_at double precision NOT NULL,
    updated_at double precision NOT NULL,
    message_count bigint NOT NULL,
    active_run text COLLATE "C" NOT NULL,
    version bigint NOT NULL
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX sessions_by_id ON sessions (tenant, id);
CREATE INDEX sessions_by_age ON sessions (tenant, created_at, id);

CREATE TABLE messages (
    tenant text COLLATE "C" NOT NULL,
    session bigint NOT NULL,
    position bigint NOT NULL,
    id text COLLATE "C" NOT NULL,
    run bigint NOT NULL,
    created_at double precision NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (session, position)
);

CREATE TABLE held_messages (
    tenant text COLLATE "C" NOT NULL,
    run bigint NOT NULL,
    ordinal integer NOT NULL,
    id text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (run, ordinal)
);

CREATE TABLE runs (
    key bigint PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    session bigint NOT NULL,
    session_id text COLLATE "C" NOT NULL,
    state smallint NOT NULL,
    place smallint NOT NULL,
    sequence bigint NOT NULL,
    driver text COLLATE "C" NOT NULL,
    epoch bigint NOT NULL,
    created_at double precision NOT NULL,
    started_at double precision,
    ended_at double precision,
    details bytea NOT NULL,
    usage bytea NOT NULL,
    turns bigint NOT NULL,
    fault bytea NOT NULL,
    output_message_id text NOT NULL,
    input_digest text NOT NULL,
    messages bigint NOT NULL DEFAULT 0,
    tool_calls bigint NOT NULL DEFAULT 0,
    tool_executions bigint NOT NULL DEFAULT 0,
    tool_failures bigint NOT NULL DEFAULT 0,
    tool_unknown bigint NOT NULL DEFAULT 0,
    tool_micros bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX runs_by_id ON runs (tenant, id);
CREATE INDEX runs_by_age ON runs (tenant, created_at, id);
CREATE INDEX runs_by_session ON runs (session, created_at, id);
CREATE INDEX runs_waiting ON runs (session, key) WHERE place = 0 AND state < 3;
CREATE INDEX runs_unassigned ON runs (key) WHERE driver = '' AND place > 0 AND state < 3;
CREATE INDEX runs_by_driver ON runs (driver, key) WHERE driver > '' AND state < 3;

CREATE TABLE batches (
    number bigint PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    session bigint NOT NULL,
    run bigint NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    data bytea NOT NULL
);
CREATE UNIQUE INDEX batches_by_run ON batches (run, last);
CREATE INDEX batches_by_session ON batches (session, number);
CREATE INDEX batches_by_tenant ON batches (tenant, number);

CREATE TABLE requests (
    tenant text COLLATE "C" NOT NULL,
    method text COLLATE "C" NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    digest text NOT NULL,
    outcome text NOT NULL,
    session bigint NOT NULL,
    expires_at double precision NOT NULL,
    PRIMARY KEY (tenant, method, request_id)
);
CREATE INDEX requests_by_expiry ON requests (expires_at);
CREATE INDEX requests_by_session ON requests (session);

CREATE TABLE usage (
    tenant text COLLATE "C" NOT NULL,
    session bigint NOT NULL,
    run bigint NOT NULL,
    provider text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cache_read_tokens bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    cost_nano_usd bigint NOT NULL,
    cost_known smallint NOT NULL,
    calls bigint NOT NULL,
    PRIMARY KEY (tenant, session, run, provider, model)
) WITH (fillfactor = 70);

CREATE TABLE leases (
    driver text COLLATE "C" PRIMARY KEY,
    stream text NOT NULL,
    expires_at double precision NOT NULL
) WITH (fillfactor = 50);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['sessions', 'messages', 'held_messages', 'runs', 'batches', 'requests', 'usage'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY tenants ON %I USING (current_setting(''behest.tenant'', true) IN (tenant, ''*''))', name);
    END LOOP;
END
$$;
"""
