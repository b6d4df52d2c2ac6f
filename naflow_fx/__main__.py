"""`python -m naflow_fx` is the command line `naflow-fx`."""

import sys

from naflow_fx.cli import main

if __name__ == "__main__":
    sys.exit(main())
