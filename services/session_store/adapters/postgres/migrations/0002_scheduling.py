"""Scheduling: which waiting run goes first, when one is to be ended unbegun, and which session another is a fork of."""

from chassis.migrations import run_script

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds columns, indexes that find what waits without looking at what has ended, and the counts that limits are held by."""
    run_script(SQL)


SQL = """
ALTER TABLE sessions ADD COLUMN forked_from text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN forked_at bigint NOT NULL DEFAULT 0;
CREATE INDEX sessions_by_origin ON sessions (tenant, forked_from, created_at) WHERE forked_from > '';

ALTER TABLE runs ADD COLUMN rank double precision NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN ends_by double precision;
SELECT set_config('behest.tenant', '*', true);
UPDATE runs SET rank = created_at, ends_by = CASE place WHEN 2 THEN created_at END WHERE state < 3;
CREATE INDEX runs_due ON runs (tenant, rank, key) WHERE driver = '' AND place = 1 AND state = 1;
CREATE INDEX runs_by_end ON runs (ends_by, key) WHERE driver = '' AND state = 1;
CREATE INDEX runs_orphaned ON runs (key) WHERE driver = '' AND state = 2;

CREATE TABLE loads (
    tenant text COLLATE "C" PRIMARY KEY,
    running bigint NOT NULL,
    waiting bigint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO loads SELECT tenant, count(*) FILTER (WHERE state = 2), count(*) FILTER (WHERE state = 1)
    FROM runs WHERE state < 3 GROUP BY tenant;
INSERT INTO loads SELECT '*', coalesce(sum(running), 0), coalesce(sum(waiting), 0) FROM loads;
ALTER TABLE loads ENABLE ROW LEVEL SECURITY;
ALTER TABLE loads FORCE ROW LEVEL SECURITY;
CREATE POLICY tenants ON loads USING (current_setting('behest.tenant', true) IN (tenant, '*'));

CREATE FUNCTION count_run() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    began integer := 0;
    waits integer := 0;
BEGIN
    IF TG_OP <> 'DELETE' THEN
        began := (NEW.state = 2)::integer;
        waits := (NEW.state = 1)::integer;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        began := began - (OLD.state = 2)::integer;
        waits := waits - (OLD.state = 1)::integer;
    END IF;
    INSERT INTO loads VALUES (coalesce(NEW.tenant, OLD.tenant), began, waits), ('*', began, waits)
        ON CONFLICT (tenant) DO UPDATE SET running = loads.running + excluded.running, waiting = loads.waiting + excluded.waiting;
    DELETE FROM loads WHERE tenant = coalesce(NEW.tenant, OLD.tenant) AND running = 0 AND waiting = 0;
    RETURN NULL;
END
$$;
CREATE TRIGGER runs_opened AFTER INSERT ON runs FOR EACH ROW WHEN (NEW.state < 3) EXECUTE FUNCTION count_run();
CREATE TRIGGER runs_moved AFTER UPDATE ON runs FOR EACH ROW WHEN (NEW.state <> OLD.state) EXECUTE FUNCTION count_run();
CREATE TRIGGER runs_removed AFTER DELETE ON runs FOR EACH ROW WHEN (OLD.state < 3) EXECUTE FUNCTION count_run();
"""
