"""The gRPC surface: proto to domain and back, one call between."""
