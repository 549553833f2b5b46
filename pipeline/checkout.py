"""Where Raylign itself lies: paths in the gallery's configurations are relative to that directory."""

from __future__ import annotations

from pathlib import Path

import conf

ROOT = Path(conf.__file__).parent.parent


def hint(path: str) -> str:
    """For messages about a relative path that isn't here, what to do if it is one of Raylign's own; else nothing."""
    if Path(path).is_absolute() or "://" in path or not path or not (ROOT / path).exists():
        return ""
    return f"; it lies in Raylign's own directory, {ROOT}: run the command there, or give the whole path"
