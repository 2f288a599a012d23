"""The two event streams: what an event is, how it is delivered, how it is written and read back."""
