"""Face recognition with Flower, audited."""
