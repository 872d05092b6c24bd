"""The version of fedaudit, where every room can read it."""

VERSION = "0.1.0"
"""The same as in pyproject.toml; a test compares them."""
