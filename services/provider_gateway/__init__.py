"""The provider gateway: one contract for models of every provider."""
