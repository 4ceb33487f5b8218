"""The memory backend: nothing outlives the process. For tests and for trying things out."""
