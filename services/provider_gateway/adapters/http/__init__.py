"""HTTP as the adapters need it: a transport, a parser for server-sent events, and what a refusal means."""
