"""What stands for `dask.limited` in a test of losing whole workers."""

import os
import signal

from bedside.adapters.dask import Answers


def kill_the_worker_on_7(batch):
    """Stands for `dask.limited` on a machine that goes down whenever item 7 reaches it."""
    if 7 in batch.items:
        os.kill(os.getpid(), signal.SIGKILL)
    return Answers(batch.items, None, 0.0)
