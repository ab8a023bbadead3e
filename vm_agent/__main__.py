"""``python -m vm_agent``."""

import sys

from vm_agent.cli import main

if __name__ == "__main__":
    sys.exit(main())
