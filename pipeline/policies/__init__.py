"""One module per policy: a ``Config`` and a pure function ``allocate`` from rewards and a budget to counts."""
