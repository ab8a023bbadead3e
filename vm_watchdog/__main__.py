"""``python -m vm_watchdog``."""

import sys

from vm_watchdog.cli import main

if __name__ == "__main__":
    sys.exit(main())
