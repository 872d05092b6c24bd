"""What a recorded run holds, and what can attack it."""
