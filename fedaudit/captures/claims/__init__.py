"""What configurations and recordings claim of differential privacy, and what their numbers give."""
