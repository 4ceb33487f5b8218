"""Runs the tool executor: `python -m tool_executor --config behest.yaml`."""

import sys

from chassis.rpc import main
from tool_executor.app import open_app
from tool_executor.settings import ToolExecutorSettings

if __name__ == "__main__":
    sys.exit(main("tool_executor", ToolExecutorSettings, open_app))
