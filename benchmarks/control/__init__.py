"""Scenario family 7: limits against scripted providers, in simulated time.

`simulator`, `providers`, `worlds`, `scenarios` and `acceptance` need the standard library alone, so that another
implementation can be put through them in its own environment. `rules` drives this project's rules. `python -m
benchmarks.control` runs everything.
"""
