"""Attacks that solve instead of searching."""
