"""What deleted sessions leave behind in their tenants' sums, and sessions that nobody sees: deleted ones, imports under way."""

from chassis.migrations import run_script

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Adds the tables; sums of deleted sessions, which had no day until now, get the first there is."""
    run_script(SQL)


SQL = """
CREATE TABLE hidden (
    session bigint PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    until double precision NOT NULL
);
CREATE INDEX hidden_by_end ON hidden (until);

CREATE TABLE departed (
    tenant text COLLATE "C" NOT NULL,
    day bigint NOT NULL,
    state smallint NOT NULL,
    runs bigint NOT NULL,
    turns bigint NOT NULL,
    events bigint NOT NULL,
    messages bigint NOT NULL,
    tool_calls bigint NOT NULL,
    tool_executions bigint NOT NULL,
    tool_failures bigint NOT NULL,
    tool_unknown bigint NOT NULL,
    tool_micros bigint NOT NULL,
    run_micros bigint NOT NULL,
    queued_micros bigint NOT NULL,
    first_opened_at double precision NOT NULL,
    last_ended_at double precision,
    PRIMARY KEY (tenant, day, state)
);

CREATE TABLE departed_usage (
    tenant text COLLATE "C" NOT NULL,
    day bigint NOT NULL,
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
    PRIMARY KEY (tenant, day, provider, model)
);
SELECT set_config('behest.tenant', '*', true);
INSERT INTO departed_usage SELECT tenant, 0, provider, model, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
    reasoning_tokens, cost_nano_usd, cost_known, calls FROM usage WHERE session = 0;
DELETE FROM usage WHERE session = 0;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['hidden', 'departed', 'departed_usage'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY tenants ON %I USING (current_setting(''behest.tenant'', true) IN (tenant, ''*''))', name);
    END LOOP;
END
$$;
"""
