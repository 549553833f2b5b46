"""Real runs on a real Ray cluster, with faults drawn from a seed: see ``disturbed`` and ``docs/faults.md``."""
