"""``python -m vinograph`` is the command ``vinograph``."""

import sys


def main() -> int:
    """Run the command line of the process and return its exit code.

    Ctrl-C gives exit code 130 even before :func:`vinograph.cli.main` handles signals.
    """
    try:
        from vinograph.cli import main as run
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
