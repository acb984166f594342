"""All checks and benchmarks that need a GPU, in under eight minutes: `python -m benchmarks.gpu`, or `make gpu`.

It runs the tests marked gpu, every op under compute-sanitizer where that is installed, and the whole benchmark with
torch.compile. The environment variable GPU_OUT names the folder for rows, plots and logs; by default
gpu-results/<device>-torch<version>-<date>. Exit code 1 if a test or the sanitizer finds an error, 2 without CUDA.
`make gpu DRY=1` rehearses it on a CPU: the tests are collected, every op runs in Triton's interpreter, the benchmark
runs on tiny shapes, and cases.txt names the cases that a GPU would run, in order.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks._command import Parser, command
from benchmarks.plots import write_plots
from benchmarks.run import BENCHES
from benchmarks.speed.rows import device_slug
from benchmarks.speed.timing import Case, Plan
from seattn.core.errors import UserError
from seattn.core.files import require_writable, write_text
from seattn.core.rows import conditions

SECONDS = 470.0  # of the whole command
TEST_SECONDS = 170.0
SANITIZER_SECONDS = 60.0
DRY_SECONDS = 600.0  # of a step of a rehearsal: the interpreter is slow
LAST_CASE_SECONDS = 60.0  # the benchmark starts no case this long before the end: compiling a net takes so long
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Step:
    """One command of the run, and the seconds after which it is ended; its output goes to <name>.log."""

    name: str
    command: list[str]
    seconds: float


@command("gpu")
def main(arguments: Sequence[str] | None) -> int:
    parser = Parser(__doc__)
    parser.add_argument(
        "--dry", action="store_true", help="rehearse without a GPU: tiny shapes, in Triton's interpreter"
    )
    dry = parser.parse_args(arguments).dry
    if not (dry or torch.cuda.is_available()):
        raise UserError("this machine has no CUDA device that torch can use, and nothing was run; --dry rehearses")
    start = time.monotonic()
    device = torch.device("cpu" if dry else "cuda")
    where = conditions(device)
    version = where.torch.split("+")[0]
    default = Path("gpu-results") / f"{'dry-' * dry}{device_slug(device, where)}-torch{version}-{where.date}"
    out = Path(os.environ.get("GPU_OUT") or default).resolve()
    require_writable(out)
    write_text(out / "conditions.txt", "".join(f"{key}: {value}\n" for key, value in asdict(where).items()))
    write_text(out / "cases.txt", "".join(f"{case.title}\n" for case in cases_on_gpu()))

    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        print("gpu: compute-sanitizer is not on PATH: not run")
    rows = out / "rows.csv"
    codes = {}
    for step in dry_steps(rows) if dry else checks(sanitizer):
        codes[step.name] = run_logged(step.command, out / f"{step.name}.log", step.seconds)
    if not dry:
        step = benchmark(rows, SECONDS - (time.monotonic() - start))
        codes[step.name] = run_logged(step.command, out / f"{step.name}.log", step.seconds)
        if rows.exists():
            write_plots(rows)
    for name, code in codes.items():
        print(f"gpu: {name}: {'passed' if code == 0 else f'exit code {code}'}")
    print(f"gpu: {time.monotonic() - start:.0f} s; all files are in {out}")
    return int(any(codes.values()))


def checks(sanitizer: str | None) -> list[Step]:
    """What shows that the kernels are right; it runs before anything is timed."""
    steps = [Step("tests", [sys.executable, "-m", "pytest", "-m", "gpu"], TEST_SECONDS)]
    if sanitizer is not None:
        command = [sanitizer, "--error-exitcode", "1", sys.executable, "-m", "benchmarks.small_step"]
        steps.append(Step("sanitizer", command, SANITIZER_SECONDS))
    return steps


def benchmark(rows: Path, seconds: float) -> Step:
    """The cases of `cases.txt`, as many as the time allows; each case's rows are written when it is done."""
    minutes = str(max(0.0, seconds - LAST_CASE_SECONDS) / 60)
    command = [sys.executable, "-m", "benchmarks.run", "--compile", "--minutes", minutes, "--out", str(rows)]
    return Step("benchmark", command, seconds)


def dry_steps(rows: Path) -> list[Step]:
    """The same steps without a GPU: the tests are collected, ops run in Triton's interpreter, cases on tiny shapes."""
    interpreted = ["env", "TRITON_INTERPRET=1", "SEATTN_KERNELS=triton", sys.executable, "-m"]
    timed = [sys.executable, "-m", "benchmarks.run", "--quick", "--only", "ops", "--out", str(rows)]
    return [
        Step("tests", [sys.executable, "-m", "pytest", "-m", "gpu", "--collect-only", "-q"], TEST_SECONDS),
        Step("sanitizer", [*interpreted, "benchmarks.small_step"], DRY_SECONDS),
        Step("benchmark", timed, DRY_SECONDS),
    ]


def cases_on_gpu() -> list[Case]:
    """The cases of the benchmark on a GPU, in the order in which they run: first those that bars need."""
    plan = Plan(torch.device("cuda"), compiled=True)
    cases = [case for bench in BENCHES.values() for case in bench(plan)]
    return sorted(cases, key=lambda case: not case.urgent)


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
