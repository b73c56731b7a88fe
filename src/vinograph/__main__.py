"""``python -m vinograph`` is the command ``vinograph``."""

import sys

from vinograph.cli import main

if __name__ == "__main__":
    sys.exit(main())
