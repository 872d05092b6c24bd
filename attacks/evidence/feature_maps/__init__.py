"""Feature maps that an update gives away, in closed form."""
