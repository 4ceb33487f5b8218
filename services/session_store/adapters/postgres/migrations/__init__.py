"""The revisions of the schema, each a file that is never changed once it was released. Read by chassis.migrations, imported by nobody."""
