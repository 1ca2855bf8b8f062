"""What the executors' tests let workers do: functions that a worker can import."""

import ctypes
import fcntl
import os
import resource
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np

from bedside.core.errors import ConfigError, InputRejected, Problem


def square(number):
    return number * number


def who(_):
    return os.getpid()


def slowest_first(number):
    time.sleep(0.2 if number == 0 else 0)
    return number


def touch_and_double(folder, number):
    (Path(folder) / str(number)).touch()
    return 2 * number


def misbehave(how):
    """Do what a hostile file can make a native decoder do; an integer is just given back."""
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "exit":
        os._exit(0)
    elif how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "memory":
        return np.ones(1 << 32, np.uint8).size
    elif how == "sleep":
        time.sleep(60)
    elif how == "spin":
        while True:
            pass
    elif how == "leak":
        _LEAK.append(np.ones(200 << 20, np.uint8))
    return how


_LEAK: list[np.ndarray] = []


def refuse(number):
    if number == 3:
        raise InputRejected("The slice is odd.", code="ODD")
    return number


def refuse_configuration(_):
    raise ConfigError([Problem("study.yaml", 3, "train", "unknown key"), Problem("study.yaml", 4, "", "worse")])


class Unsendable(Exception):
    def __init__(self, one, two):
        super().__init__(one)


def defect(kind):
    if kind == "lambda":
        return lambda: None
    if kind == "unsendable":
        raise Unsendable(1, 2)
    raise KeyError(kind)


def chatter(number):
    """Print as native decoders do, past Python's own streams."""
    os.write(1, b"SMITH^JOHN\n")
    os.write(2, b"SMITH^JOHN\n")
    print("SMITH^JOHN", file=sys.stderr)
    warnings.warn("SMITH^JOHN", stacklevel=1)
    return number


def volume(number):
    return np.full(4 << 20, number, np.uint8)


def long_answer_cut_short(how):
    """Give back a long answer, and be killed while it is on its way."""
    if how == "long":
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return bytes(8 << 20)
    return how


def span(item):
    """When an item was worked on."""
    began = time.monotonic()
    time.sleep(0.01)
    return began, time.monotonic()


def limits(_):
    """Of core files in bytes, and of the address space in GB."""
    return resource.getrlimit(resource.RLIMIT_CORE)[0], resource.getrlimit(resource.RLIMIT_AS)[0] / (1 << 30)


def parent_of(_):
    return os.getppid()


def can_lock(path, _):
    with Path(path).open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def open_files(_):
    """What this process has open, by the number of the descriptor."""
    found = []
    for number in sorted(int(one.name) for one in Path("/proc/self/fd").iterdir()):
        link = Path(f"/proc/self/fd/{number}")
        if link.exists() or link.is_symlink():
            found.append(str(link.readlink()))
    return found
