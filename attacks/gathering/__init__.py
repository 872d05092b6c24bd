"""All that an observation says, the defenses in use taken into account, before any search."""
