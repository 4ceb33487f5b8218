"""What the four services share: faults, settings, rpc, telemetry, clocks and ids. Nothing that knows what behest does."""
