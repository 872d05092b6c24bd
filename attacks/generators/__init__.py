"""Faces as generators draw them, untrained networks, and auxiliary faces."""
