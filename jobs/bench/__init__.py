"""``raylign bench``: how much of the engines' speed is left when they run inside the pipeline."""

from jobs.bench.command import main

__all__ = ["main"]
