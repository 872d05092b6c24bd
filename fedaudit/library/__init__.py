"""What Python programs call: attack one update, audit a study, read a run."""
