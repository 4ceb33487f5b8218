"""The SQLite backend: one file, for one machine."""
