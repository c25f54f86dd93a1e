"""`python -m kpy` and the `kpy` script."""

import gc
import sys

from kpy.cli.main import main as run


def main() -> int:
    """The program, as a process of its own: an exit code."""
    # Importing and planning make a hundred thousand objects that stay. To look through them for garbage again and again, and
    # once more at the end, took a fifth of a small build.
    gc.set_threshold(20_000, 20, 20)
    try:
        return run()
    finally:
        gc.freeze()


if __name__ == "__main__":
    sys.exit(main())
