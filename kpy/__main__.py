"""`python -m kpy` and the `kpy` script."""

import sys

from kpy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
