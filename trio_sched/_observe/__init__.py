"""Presentations of a run, made from its events and snapshots alone."""
