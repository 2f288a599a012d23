"""Adapters that put other implementations through the same scenarios, each in its own environment."""
