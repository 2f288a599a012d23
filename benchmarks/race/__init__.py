"""Scenario family 9: real clients over real HTTP, at one provider whose capacity falls and comes back.

Each client is a process in an environment of its own (`clients/`), the provider is another one (`provider.py`), and the
clients take turns. `python -m benchmarks.race` runs everything. What counts is counted by the provider: how much of
what it allowed was used, what it refused, and which rows it answered to the end.
"""
