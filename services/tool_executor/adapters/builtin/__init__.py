"""Tools that come with the executor, as `builtin:<name>`."""

from tool_executor.adapters.builtin.calculator import calculator
from tool_executor.adapters.builtin.time import time

__all__ = ["calculator", "time"]
