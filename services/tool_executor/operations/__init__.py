"""What the executor does: keep tools, run calls, remember what became of them."""
