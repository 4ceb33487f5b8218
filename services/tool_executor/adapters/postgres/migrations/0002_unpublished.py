"""Ended executions that are to be published."""

from chassis.migrations import run_script

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Makes the table."""
    run_script(SQL)


# A table of its own keeps receipts cheap: a mark on the record would be one more version and index entry of a wide row.
# `taken_until`, in seconds since the epoch, is when those that somebody took may be taken again.
SQL = """
CREATE TABLE unpublished (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    taken_until double precision NOT NULL DEFAULT 0,
    UNIQUE (tenant, key)
) WITH (fillfactor = 50);
ALTER TABLE unpublished ENABLE ROW LEVEL SECURITY;
ALTER TABLE unpublished FORCE ROW LEVEL SECURITY;
CREATE POLICY tenants ON unpublished USING (current_setting('behest.tenant', true) IN (tenant, '*'));
"""
