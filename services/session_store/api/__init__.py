"""The gRPC surface: servicers and their conversions."""
