"""Runs the tool executor: `python -m tool_executor --config behest.yaml`.

`python -m tool_executor migrate` brings its schema in PostgreSQL forward.
"""

from __future__ import annotations

import sys

from chassis import migrating
from chassis.rpc import main
from tool_executor.app import open_app
from tool_executor.settings import ToolExecutorSettings

if __name__ == "__main__":
    if sys.argv[1:2] == ["migrate"]:
        sys.exit(migrating.main("tool_executor", ToolExecutorSettings, sys.argv[2:]))
    sys.exit(main("tool_executor", ToolExecutorSettings, open_app))
