"""The `elle` command: one module for each group of verbs."""

import os
import sys

# Several BLAS threads wait for each other in a busy loop: where other programs use the cores too, `elle fit` then takes
# several times as long. And with one thread the last bits do not depend on the machine's cores. BLAS reads
# this when numpy is first imported, which is later than here.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")


def start() -> None:
    """Import the command and run it, as `elle` and `elle-router` do; Ctrl-C ends it in one line meanwhile too."""
    try:
        from router.cli.main import main

        main()
    except KeyboardInterrupt:
        # While verbs run, click itself says this.
        sys.exit("Aborted!")
