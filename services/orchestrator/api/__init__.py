"""The orchestrator's gRPC services."""
