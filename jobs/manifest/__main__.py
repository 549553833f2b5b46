"""``python -m jobs.manifest``."""

import sys

from jobs.manifest.command import main

if __name__ == "__main__":
    sys.exit(main())
