"""The contract: convert in, one call, convert out."""
