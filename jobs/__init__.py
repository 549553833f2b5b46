"""One module per command: ``raylign NAME`` and ``python -m jobs.NAME`` are the same thing."""
