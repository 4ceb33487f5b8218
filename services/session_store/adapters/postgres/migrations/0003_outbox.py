"""Publishing: who publishes which sessions' events, and how far that has come."""

from chassis.migrations import run_script

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds the table of shards, a row each; no tenant's."""
    run_script(SQL)


SQL = """
CREATE TABLE outbox (
    shard integer PRIMARY KEY,
    number bigint NOT NULL,
    owner text NOT NULL,
    epoch bigint NOT NULL,
    expires_at double precision NOT NULL,
    heir text NOT NULL
);
"""
