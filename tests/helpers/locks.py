"""A file lock that another process holds, as a training in another terminal does."""

import subprocess
import sys
from pathlib import Path

_HOLD = """
import sys, time, filelock
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(99)
"""


def hold(path: Path) -> "subprocess.Popen[bytes]":
    """Start a process that holds the lock of the file `path` until it is killed; returns when it has the lock."""
    holder = subprocess.Popen([sys.executable, "-c", _HOLD, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    return holder
