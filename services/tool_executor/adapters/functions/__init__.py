"""Python functions as tools: found by reference, described from their signature and docstring, called with validated arguments."""
