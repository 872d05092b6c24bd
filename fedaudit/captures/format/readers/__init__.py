"""Readers of files with tensors, one file a format. Each file is taken to be hostile."""
