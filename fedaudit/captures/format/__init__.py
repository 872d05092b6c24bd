"""The capture format: what a recorded run looks like on disk, and how it is read."""
