"""What the operations' ports are made of: Python functions, threads, a schema validator, ledgers."""
