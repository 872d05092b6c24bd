"""The matching attack: dummy images are moved until they explain the update."""
