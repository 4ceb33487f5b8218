"""The vocabulary and the rules of calling a model. Pure: no clock, no randomness, no I/O, no generated code."""
