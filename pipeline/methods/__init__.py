"""One module per method: a ``Config`` and a generator ``run`` that yields effects."""
