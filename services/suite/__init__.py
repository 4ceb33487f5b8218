"""All four services in one process, the `behest` command and the Python client. Nothing that a service needs."""
