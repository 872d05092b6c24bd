"""Files: atomic writes, the cache, and assets that are fetched by hash."""
