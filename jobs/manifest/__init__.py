"""``raylign manifest``: a run as a RayJob for Kubernetes, to be applied where KubeRay is installed."""

from jobs.manifest.command import main

__all__ = ["main"]
