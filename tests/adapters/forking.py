"""A program that forks ahead: what its workers hold and give is printed as JSON, for `test_nursery.py`. FOLDER"""

import fcntl
import json
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import work

from bedside.adapters.nursery import fork_ahead
from bedside.adapters.processes import LocalProcesses

folder = Path(sys.argv[1])
said = {"threads": np.ones((300, 300)).dot(np.ones((300, 300))).sum()}
held = (folder / "held").open("w")
fcntl.flock(held, fcntl.LOCK_EX)
said["forked"] = [fork_ahead("work"), fork_ahead("work")]
with LocalProcesses(2, memory_gb=1, seconds=2) as executor:
    said["nursery"] = executor._nursery._process.pid
    said["answers"] = [str(one) for one in executor.map(work.misbehave, [1, "segfault", "memory", "sleep", 2])]
    said["limits"] = list(executor.map(work.limits, [0]))
    said["parent"] = [sorted(set(executor.map(work.parent_of, range(9)))) == [said["nursery"]]]
    held.close()
    said["lock is free"] = list(executor.map(partial(work.can_lock, str(folder / "held")), [0]))
    said["open files"] = list(executor.map(work.open_files, [0]))
    said["learned"] = list(executor.map(os.path.basename, ["a/b"]))
said["gone"] = not Path(f"/proc/{said['nursery']}").exists()
with LocalProcesses(1, memory_gb=1, seconds=20) as executor:
    said["next is started"] = isinstance(executor._nursery._process, subprocess.Popen)
    said["next works"] = list(executor.map(work.square, [3]))
stop = threading.Event()
beside = threading.Thread(target=stop.wait)
beside.start()
said["forked beside a thread"] = fork_ahead("work")
stop.set()
print(json.dumps(said))
