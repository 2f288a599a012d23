"""The scheduler: the one owner of control flow between readiness, ready order, task admission and workers."""
