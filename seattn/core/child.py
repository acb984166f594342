"""A command of seattn in a process of its own, which ends when the process that started it ends.

`python -m seattn.core.child PID train …` is `seattn train …`, as long as the process PID lives.
"""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

COMMAND = (sys.executable, "-m", "seattn.core.child")


class Child:
    """A `seattn` command that runs in a process of its own.

    Ctrl-C reaches only the process that made this object. The child ends when that process ends, even by `kill -9`.

    Args:
        arguments: the command's name and its arguments.
        log: the file to which the command's output is added.
        threads: the number of threads that torch may use there.
        code: the checkout of this project whose code runs; by default the code that runs here.
        nice: the priority of the process, from 0 (as this process) to 19 (the lowest).
    """

    def __init__(
        self, arguments: Sequence[str], log: Path, *, threads: int, code: Path | None = None, nice: int = 0
    ) -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        if code is not None:
            environment["PYTHONPATH"] = os.pathsep.join([str(code), str(code / "kernels")])
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*COMMAND, str(os.getpid()), *arguments],
                cwd=code,
                env=environment,
                preexec_fn=partial(_lower_priority, nice) if nice else None,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def is_running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.poll() is None

    def failure(self) -> str | None:
        """Why the ended command failed, in one line; None if it succeeded."""
        code = self._process.wait()
        if code == 0:
            return None
        if code < 0:
            return f"its process was ended by {signal.Signals(-code).name}; is there enough memory for so many jobs?"
        lines = [line.strip() for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines()]
        last = next((line for line in reversed(lines) if line), "")
        return last.removeprefix("seattn: ") or f"its process ended with exit code {code}"

    def stop(self) -> None:
        """End the process, and wait until it has ended; a training run loses only its unfinished epoch."""
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _lower_priority(nice: int) -> None:
    """In a new process: take the priority `nice`, for the process and for its session.

    Linux shares the CPUs between sessions first, and by `nice` only within a session.
    https://man7.org/linux/man-pages/man7/sched.7.html (autogroup)
    """
    os.nice(nice)
    with suppress(OSError):  # no Linux, or no autogroups
        Path("/proc/self/autogroup").write_text(str(nice), encoding="ascii")


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=(int(sys.argv.pop(1)),), daemon=True).start()
    runpy.run_module("seattn", run_name="__main__", alter_sys=True)
