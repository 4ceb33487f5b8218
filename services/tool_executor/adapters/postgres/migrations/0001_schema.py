"""The effect ledger, the leases of its claimants, what is to be stopped, and registered tools."""

from chassis.migrations import run_script

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes the tables."""
    run_script(SQL)


# Keys are compared byte by byte, so that the calls of a run are one range of them. Executions are in the order of their claims:
# the oldest have the lowest id and a purge needs no index. A receipt changes no indexed column, so it costs no index entry.
SQL = """
CREATE TABLE executions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    call_id text NOT NULL,
    tool text NOT NULL,
    arguments bytea NOT NULL,
    instance text NOT NULL,
    started_at double precision NOT NULL,
    run_id text NOT NULL,
    session_id text NOT NULL,
    tool_version text NOT NULL,
    repeatable boolean NOT NULL,
    attempt integer NOT NULL,
    approved_by text NOT NULL,
    status smallint NOT NULL,
    content text NOT NULL,
    full_bytes bigint NOT NULL,
    truncated boolean NOT NULL,
    effect_unknown boolean NOT NULL,
    ended_at double precision,
    duration double precision NOT NULL,
    UNIQUE (tenant, key)
) WITH (fillfactor = 80);

CREATE TABLE executors (instance text PRIMARY KEY, alive_until double precision NOT NULL) WITH (fillfactor = 50);

CREATE TABLE cancellations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    run_id text NOT NULL,
    call_ids text[] NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE registrations (
    tenant text NOT NULL,
    agent text NOT NULL,
    run_id text NOT NULL,
    name text NOT NULL,
    description text NOT NULL,
    parameters bytea NOT NULL,
    function text NOT NULL,
    timeout double precision NOT NULL,
    traits text NOT NULL,
    result_schema bytea NOT NULL,
    strict boolean NOT NULL,
    used_at double precision NOT NULL,
    PRIMARY KEY (tenant, agent, run_id, name)
);
CREATE TABLE registrations_version (version bigint NOT NULL);
INSERT INTO registrations_version VALUES (0);

CREATE TABLE tool_executor_writers (
    id text PRIMARY KEY,
    fence bigint NOT NULL,
    token bigint NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now()
);

DO $$
DECLARE of_tenants text;
BEGIN
    FOREACH of_tenants IN ARRAY ARRAY['executions', 'cancellations', 'registrations'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', of_tenants);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', of_tenants);
        EXECUTE format('CREATE POLICY tenants ON %I USING (current_setting(''behest.tenant'', true) IN (tenant, ''*''))', of_tenants);
    END LOOP;
END $$;
"""
