"""What the tool executor keeps in SQLite. Append migrations; never change one that was released."""

from __future__ import annotations

# Executions are in the order of their claims, so the oldest have the lowest id and a purge needs no index.
MIGRATIONS = (
    """
    CREATE TABLE executions (
        id INTEGER PRIMARY KEY,
        tenant TEXT NOT NULL,
        key TEXT NOT NULL,
        call_id TEXT NOT NULL,
        tool TEXT NOT NULL,
        arguments BLOB NOT NULL,
        instance TEXT NOT NULL,
        started_at REAL NOT NULL,
        run_id TEXT NOT NULL,
        session_id TEXT NOT NULL,
        tool_version TEXT NOT NULL,
        repeatable INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        approved_by TEXT NOT NULL,
        status INTEGER NOT NULL,
        content TEXT NOT NULL,
        full_bytes INTEGER NOT NULL,
        truncated INTEGER NOT NULL,
        effect_unknown INTEGER NOT NULL,
        ended_at REAL,
        duration REAL NOT NULL,
        UNIQUE (tenant, key)
    ) STRICT;
    CREATE TABLE executors (instance TEXT PRIMARY KEY, alive_until REAL NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE registrations (
        tenant TEXT NOT NULL,
        agent TEXT NOT NULL,
        run_id TEXT NOT NULL,
        name TEXT NOT NULL,
        description TEXT NOT NULL,
        parameters BLOB NOT NULL,
        function TEXT NOT NULL,
        timeout REAL NOT NULL,
        traits TEXT NOT NULL,
        result_schema BLOB NOT NULL,
        strict INTEGER NOT NULL,
        used_at REAL NOT NULL,
        UNIQUE (tenant, agent, run_id, name)
    ) STRICT;
    CREATE TABLE registrations_version (version INTEGER NOT NULL) STRICT;
    INSERT INTO registrations_version VALUES (0);
    """,
    # Ended executions that are to be published; `taken_until` is when those that somebody took may be taken again.
    """
    CREATE TABLE unpublished (
        id INTEGER PRIMARY KEY,
        tenant TEXT NOT NULL,
        key TEXT NOT NULL,
        taken_until REAL NOT NULL DEFAULT 0,
        UNIQUE (tenant, key)
    ) STRICT;
    """,
)
