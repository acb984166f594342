"""Commands in processes of their own, and the tables that they write."""

import csv
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def start(*arguments: object, python: tuple[str, ...] = ("-m", "seattn")) -> "subprocess.Popen[str]":
    """`seattn` with these arguments in a process; `python` is what runs it."""
    command = [sys.executable, *python, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[str] | None" = None) -> None:
    """Wait until the condition holds, as long as the process runs."""
    deadline = time.monotonic() + 200
    while not condition():
        assert process is None or process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def interrupt(process: "subprocess.Popen[str]") -> str:
    """Press Ctrl-C; returns the log once the process has ended."""
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=120)[1]


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, whose first line names the columns."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
