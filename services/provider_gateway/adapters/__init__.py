"""What speaks to the outside: one folder per provider protocol, and the HTTP they share."""
