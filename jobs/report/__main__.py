"""``python -m jobs.report``."""

import sys

from jobs.report.command import main

if __name__ == "__main__":
    sys.exit(main())
