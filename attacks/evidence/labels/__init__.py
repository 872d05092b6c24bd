"""The batch's labels, from the gradient of the head."""
