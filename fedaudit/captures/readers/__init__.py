"""Readers of update files, one file a format. Each file is taken to be hostile."""
