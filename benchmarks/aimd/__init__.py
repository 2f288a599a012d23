"""Scenario family 7: adaptive limits against scripted providers, in simulated time.

`simulator`, `providers`, `clients`, `scenarios` and `results` need the standard library alone, so that another
implementation can be put through them in its own environment. `ours` drives this project's rule,
`benchmarks.peers.aimd` the peer's. `python -m benchmarks.aimd` runs everything.
"""
