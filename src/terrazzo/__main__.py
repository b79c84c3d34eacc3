"""`python -m terrazzo` is `terrazzo`."""

import sys

from terrazzo.cli import main

if __name__ == "__main__":
    sys.exit(main())
