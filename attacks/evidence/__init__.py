"""What an update says before any search: gradients, labels, color, feature maps."""
