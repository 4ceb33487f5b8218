"""The revisions of the schema, run by chassis/migrations.py alone. Append to them; never change one that was released."""
