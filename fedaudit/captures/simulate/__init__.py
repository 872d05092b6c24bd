"""Captures of the simulated federation."""
