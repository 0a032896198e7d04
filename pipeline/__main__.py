"""`python -m ckd.pipeline` is `ckd`."""

import sys

from ckd.pipeline.cli import main

if __name__ == "__main__":  # the processes of a sweep import this module, too
    sys.exit(main())
