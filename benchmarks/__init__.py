"""Measurements of this project, beside the peer and the floor: `python -m benchmarks --help`."""

HARNESS_VERSION = "1"
