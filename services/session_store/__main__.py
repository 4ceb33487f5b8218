"""Runs the session store: `python -m session_store --config behest.yaml`.

`python -m session_store migrate` brings its schema in PostgreSQL forward.
"""

from __future__ import annotations

import sys

from chassis import migrating
from chassis.rpc import main
from session_store.app import open_app
from session_store.settings import SessionStoreSettings

if __name__ == "__main__":
    if sys.argv[1:2] == ["migrate"]:
        sys.exit(migrating.main("session_store", SessionStoreSettings, sys.argv[2:]))
    sys.exit(main("session_store", SessionStoreSettings, open_app))
