"""What the service does, over ports. No wire format, no SQL."""
