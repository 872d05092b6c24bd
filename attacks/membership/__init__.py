"""Who was in the data: what the updates of all clients say of a photo or of a person."""
