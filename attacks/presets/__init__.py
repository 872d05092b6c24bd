"""Published attacks, one paper a file: how each sets the matching attack up."""
