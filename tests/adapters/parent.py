"""A parent with two workers that sleep: prints their pids, then waits to be killed or interrupted. `forked`: of a fork of it."""

import sys
import time

from bedside.adapters.nursery import fork_ahead
from bedside.adapters.processes import LocalProcesses

if "forked" in sys.argv:
    assert fork_ahead("time")
try:
    with LocalProcesses(2, memory_gb=1, seconds=60) as executor:
        running = executor.map(time.sleep, [0, 0, 60, 60])
        next(running)
        next(running)
        print(*[worker.pid for worker in executor.crew], flush=True)
        next(running)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(8)
