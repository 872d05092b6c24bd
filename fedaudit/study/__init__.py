"""Studies: the file, its checks, jobs, the cell, workers and run folders."""
