"""The tool executor: knows tools and runs them, each call at most once.

Import `tool`, `ToolContext` and `ToolFailed` from here to write your own tools.
"""

from tool_executor.tools import ToolContext, ToolFailed, tool

__all__ = ["ToolContext", "ToolFailed", "tool"]
