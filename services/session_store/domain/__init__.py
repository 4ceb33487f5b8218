"""What sessions, runs and logs are, and which changes are legal. No I/O, no clock, no generated code."""
