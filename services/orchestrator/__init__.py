"""The orchestrator: carries out orders, one durable log per run."""
