"""What replicas share: how much of each budget is used, which targets are to be left alone."""

from chassis.migrations import run_script

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes the tables."""
    run_script(SQL)


# A budget's row is locked for every settling of a replica's allowance, so the numbers change in place: no index holds them, and the
# fill factors leave room for the next version on the same page. A budget of all tenants has tenant '', and everybody may see it.
SQL = """
CREATE TABLE budgets (
    id text COLLATE "C" PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    unit smallint NOT NULL,
    period bigint NOT NULL,
    start bigint NOT NULL,
    granted bigint NOT NULL DEFAULT 0,
    spent bigint NOT NULL DEFAULT 0,
    held bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE INDEX budgets_by_tenant ON budgets (tenant, name, key, model);
CREATE INDEX budgets_by_end ON budgets ((start + period)) WHERE period > 0;

CREATE TABLE allowances (
    id text COLLATE "C" PRIMARY KEY,
    budget text COLLATE "C" NOT NULL,
    replica text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    granted bigint NOT NULL,
    spent bigint NOT NULL,
    held bigint NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX allowances_by_replica ON allowances (replica);
CREATE INDEX allowances_by_budget ON allowances (budget);

CREATE TABLE gateway_replicas (id text COLLATE "C" PRIMARY KEY, seen_at timestamptz NOT NULL) WITH (fillfactor = 50);

CREATE TABLE cooling_targets (target text COLLATE "C" PRIMARY KEY, until timestamptz NOT NULL) WITH (fillfactor = 50);

CREATE TABLE provider_gateway_writers (
    id text PRIMARY KEY,
    fence bigint NOT NULL,
    token bigint NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

DO $$
DECLARE of_tenants text;
BEGIN
    FOREACH of_tenants IN ARRAY ARRAY['budgets', 'allowances'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', of_tenants);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', of_tenants);
    END LOOP;
END $$;
CREATE POLICY tenants ON budgets USING (current_setting('behest.tenant', true) IN (tenant, '*')
    OR tenant = '' AND current_setting('behest.tenant', true) <> '');
CREATE POLICY tenants ON allowances USING (current_setting('behest.tenant', true) IN (tenant, '*'));
"""
