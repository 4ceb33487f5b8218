"""The session store on PostgreSQL."""
