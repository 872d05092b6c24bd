"""Local training, replayed: clients that take several steps."""
