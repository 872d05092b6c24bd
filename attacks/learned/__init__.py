"""Attacks that learn the inverse from auxiliary faces, and then need milliseconds a target."""
