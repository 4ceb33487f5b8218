"""A PostgreSQL database with one writing task and group commit. What is stored in it is each service's own affair.

Work is a plain function of rows: every statement that it asks for suspends it (statements.py) while the event loop goes on.
All writes that are pending when the writer is free share a transaction (writing.py); reads run beside it on a few connections (reading.py).
Several processes may share a database: the transaction is the truth.
"""

from chassis.postgres.clock import DatabaseClock
from chassis.postgres.connecting import Durability, Server, require_newest
from chassis.postgres.database import Database, open_postgres
from chassis.postgres.faults import is_cut
from chassis.postgres.frames import Frame, PlainFrame
from chassis.postgres.listening import Listener
from chassis.postgres.statements import Row, Statements
from chassis.postgres.writing import Pending, Shortcut, Writer, settle

__all__ = [
    "Database",
    "DatabaseClock",
    "Durability",
    "Frame",
    "Listener",
    "Pending",
    "PlainFrame",
    "Row",
    "Server",
    "Shortcut",
    "Statements",
    "Writer",
    "is_cut",
    "open_postgres",
    "require_newest",
    "settle",
]
