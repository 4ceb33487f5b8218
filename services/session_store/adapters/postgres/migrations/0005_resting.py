"""Runs that await approval: nobody drives them until they are woken by a command or by the time."""

from chassis.migrations import run_script

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Adds the moment that wakes a run, the index that finds those it has come for, and one of those that ever waited."""
    run_script(SQL)


SQL = """
ALTER TABLE runs ADD COLUMN wakes_at double precision;
CREATE INDEX runs_resting ON runs (wakes_at, key) WHERE state = 6;
CREATE INDEX runs_rested ON runs (tenant, created_at, id) WHERE wakes_at IS NOT NULL;
"""
