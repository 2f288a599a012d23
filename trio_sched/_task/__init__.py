"""The task stage: what is ready, what is next, and what may become a running worker now."""
