"""Nouns, protocols, errors and seeds: what every other room may import."""
