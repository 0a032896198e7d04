"""`python -m ckd.pipeline` is `ckd`."""

import sys

from ckd.pipeline.cli import main

sys.exit(main())
