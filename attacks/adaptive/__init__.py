"""What an attacker that knows of a defense, or reads it off the update, makes of it."""
