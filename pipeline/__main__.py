"""`python -m ckd.pipeline` is `ckd`; torchrun starts it by this name."""

import os
import sys

from ckd.pipeline.cli import main

if __name__ == "__main__":  # the processes of a sweep import this module, too
    code = main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # One of several processes: while the interpreter is taken down, threads of gloo that still run abort it now and
        # then, after all is written, and torchrun takes that for a failure.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
