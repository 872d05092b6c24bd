"""A recorded run as the source of an audit."""
