"""Audit what federated learning really shares."""

__version__ = "0.1.0"
