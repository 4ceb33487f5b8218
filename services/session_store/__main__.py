"""Runs the session store: `python -m session_store --config behest.yaml`."""

from __future__ import annotations

import sys

from chassis.rpc import main
from session_store.app import open_app
from session_store.settings import SessionStoreSettings

if __name__ == "__main__":
    sys.exit(main("session_store", SessionStoreSettings, open_app))
