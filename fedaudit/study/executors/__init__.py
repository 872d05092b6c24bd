"""Where a study's jobs are done: one file a kind, all behind the protocols of `pool.py`."""
