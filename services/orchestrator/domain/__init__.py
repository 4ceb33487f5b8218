"""What a run is and what it does next. Pure: no clock, no randomness, no I/O, no generated code."""
