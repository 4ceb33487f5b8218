"""What the gateway does: route, attempt, retry, bound, price. Ports live here; nothing here knows HTTP or gRPC."""
