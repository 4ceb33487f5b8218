"""What the orchestrator does for its callers: accept, drive, follow and stop runs."""
