"""``raylign report``: quality against cost of finished runs, as one HTML page and a CSV."""

from jobs.report.command import main

__all__ = ["main"]
