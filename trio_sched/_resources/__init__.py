"""Frozen values that name resources: what is asked for, held and given back. They know nothing of who uses them."""
