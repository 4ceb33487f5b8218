"""What a tool, a call and its record are, and the rules between them. Pure: no I/O, no clock, no generated code."""
