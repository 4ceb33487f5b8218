"""The orchestrator's neighbours behind its ports."""
