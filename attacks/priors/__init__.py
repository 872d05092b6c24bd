"""What turns free variables into images, and what scores images."""
