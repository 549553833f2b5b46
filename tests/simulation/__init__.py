"""Whole runs in virtual time, with faults drawn from a seed: see ``world`` and ``docs/faults.md``."""
