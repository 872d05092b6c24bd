"""Inversion of class embeddings and cluster centers."""
