"""What runs inside a worker process: one module for each scenario and candidate, and what they share.

A workload module has `prepare(params) -> Run`. Preparing is not measured; each call of the run is one iteration. What
other implementations share (`outcome`, `samples`, `task_cycle`, `request_turns`) needs the standard library alone.
"""
