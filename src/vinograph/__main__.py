"""``python -m vinograph`` is the command ``vinograph``."""

import sys


def main() -> int:
    """Run the command line of the process and return its exit code.

    A Ctrl-C before :func:`vinograph.cli.main` listens to signals ends it as one later does.
    """
    try:
        from vinograph.cli import main as run
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
