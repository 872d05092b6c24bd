"""Clients that take several local steps."""
