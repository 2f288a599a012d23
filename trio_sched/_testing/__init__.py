"""What users need to test pipelines of their own: a provider without HTTP, and runs in simulated time."""
