"""``python -m jobs.bench``."""

from __future__ import annotations

import sys

from jobs.bench.command import main

sys.exit(main())
