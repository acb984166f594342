"""All checks and benchmarks that need a GPU, in under eight minutes: `python -m benchmarks.gpu`, or `make gpu`.

It runs the tests marked gpu, every op under compute-sanitizer where that is installed, and the whole benchmark with
torch.compile. The environment variable GPU_OUT names the folder for rows, plots and logs; by default
gpu-results/<device>-torch<version>-<date>. Exit code 1 if a test or the sanitizer finds an error, 2 without CUDA.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks._command import Parser, command
from benchmarks.plots import write_plots
from benchmarks.speed.rows import device_slug
from seattn.core.errors import UserError
from seattn.core.files import require_writable, write_text
from seattn.core.rows import conditions

SECONDS = 470.0  # of the whole command
TEST_SECONDS = 170.0
SANITIZER_SECONDS = 60.0
LAST_CASE_SECONDS = 60.0  # the benchmark starts no case this long before the end: compiling a net takes so long
ROOT = Path(__file__).resolve().parent.parent


@command("gpu")
def main(arguments: Sequence[str] | None) -> int:
    Parser(__doc__).parse_args(arguments)
    if not torch.cuda.is_available():
        raise UserError("this machine has no CUDA device that torch can use, and nothing was run")
    start = time.monotonic()
    device = torch.device("cuda")
    where = conditions(device)
    version = where.torch.split("+")[0]
    default = Path("gpu-results") / f"{device_slug(device, where)}-torch{version}-{where.date}"
    out = Path(os.environ.get("GPU_OUT") or default).resolve()
    require_writable(out)
    write_text(out / "conditions.txt", "".join(f"{key}: {value}\n" for key, value in asdict(where).items()))

    codes = {"tests": run_logged([sys.executable, "-m", "pytest", "-m", "gpu"], out / "tests.log", TEST_SECONDS)}
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        write_text(out / "sanitizer.log", "compute-sanitizer is not on PATH: not run\n")
        print("gpu: compute-sanitizer is not on PATH: not run")
    else:
        command = [sanitizer, "--error-exitcode", "1", sys.executable, "-m", "benchmarks.small_step"]
        codes["sanitizer"] = run_logged(command, out / "sanitizer.log", SANITIZER_SECONDS)
    left = SECONDS - (time.monotonic() - start)
    minutes = str(max(0.0, left - LAST_CASE_SECONDS) / 60)
    rows = out / "rows.csv"
    command = [sys.executable, "-m", "benchmarks.run", "--compile", "--minutes", minutes, "--out", str(rows)]
    codes["benchmark"] = run_logged(command, out / "benchmark.log", left)
    if rows.exists():
        write_plots(rows)
    for name, code in codes.items():
        print(f"gpu: {name}: {'passed' if code == 0 else f'exit code {code}'}")
    print(f"gpu: {time.monotonic() - start:.0f} s; all files are in {out}")
    return int(any(codes.values()))


def run_logged(command: list[str], log: Path, seconds: float) -> int:
    """Run in the checkout, write the output to `log` and print its end; return the exit code, 124 after a time-out."""
    print(f"gpu: {' '.join(command)}", flush=True)
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            file.write(f"\nended after {seconds:.0f} s\n")
            code = 124
    print("\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
