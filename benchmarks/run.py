"""Time operators, blocks and nets on the device that is here: `python -m benchmarks.run`, or `make bench`.

Appends a row for every implementation of every case to benchmarks/results/<device>.csv while running, and ends with the
ratios, their geometric means and the bars. Cases that a bar needs run first; when the minutes are over, the other cases
are listed. The exit code is 1 if a case failed. The times mean little while the machine does other work.
"""

import argparse
import gc
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from benchmarks._command import Parser, command
from benchmarks.evidence.rows import RESULTS
from benchmarks.speed import blocks, models, ops
from benchmarks.speed.bars import CPU_BARS, GPU_BARS, reached
from benchmarks.speed.rows import SpeedRow, device_slug
from benchmarks.speed.tables import bars_table, group_line, summary_table
from benchmarks.speed.timing import Bench, Case, Plan, copy_bandwidth, cpu_clock, cuda_clock
from seattn.core.device import cpu_has_bfloat16
from seattn.core.errors import UserError
from seattn.core.files import require_writable
from seattn.core.records import append_rows
from seattn.core.rows import conditions

BENCHES = {"ops": ops.cases, "blocks": blocks.cases, "models": models.cases}
QUICK_COPY = 2**20
_MOST_BUSY = 0.5  # of the load average: one training makes it 1


@command("run")
def main(arguments: Sequence[str] | None) -> int:
    args = _parser().parse_args(arguments)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # Windows has none
    # Rich assumes 80 columns for an output that is not a terminal, and would cut the tables.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plan = Plan(device, compiled=args.compile, quick=args.quick)
    cases = _chosen(plan, args)
    where = conditions(device)
    out = args.out or (None if args.quick else RESULTS / f"{device_slug(device, where)}.csv")
    if out is not None:
        require_writable(out.parent)
        append_rows(SpeedRow, out, [])

    def log(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    clock = cuda_clock() if plan.cuda else cpu_clock
    bench = Bench(plan, clock, copy_bandwidth(device, clock, QUICK_COPY if args.quick else None), where, log)
    log(f"{where.machine}, torch {where.torch}: copies {bench.bandwidth / 1e9:.3g} GB/s")
    if not (plan.cuda or cpu_has_bfloat16()):
        log("this CPU has no bfloat16: nets run in float32 only")
    if load > _MOST_BUSY:
        log(f"the load average was {load:.1f} before the start: if other programs are running, the times mean little")
    rows, failed = _run(bench, cases, out, deadline=time.monotonic() + 60 * args.minutes)
    console.print(summary_table(rows))
    if not args.quick:
        console.print(bars_table(reached(rows, GPU_BARS if plan.cuda else CPU_BARS)))
    log(f"{len(rows)} rows " + ("were not written: --quick without --out" if out is None else f"appended to {out}"))
    return int(failed)


def _chosen(plan: Plan, args: argparse.Namespace) -> list[Case]:
    """The cases that the arguments choose.

    Raises:
        UserError: if no case has a name that was given.
    """
    cases = [case for name in args.only or BENCHES for case in BENCHES[name](plan)]
    for field in ("case", "mode"):
        wanted = getattr(args, field)
        names = dict.fromkeys(getattr(case, field) for case in cases)
        for name in wanted or ():
            if name not in names:
                raise UserError(f"--{field} must be one of {', '.join(names)}; got {name}")
        cases = [case for case in cases if not wanted or getattr(case, field) in wanted]
    return cases


def _run(bench: Bench, cases: Sequence[Case], out: Path | None, deadline: float) -> tuple[list[SpeedRow], bool]:
    """The rows, and whether a case failed; a failed case does not stop the cases after it."""
    rows: list[SpeedRow] = []
    left_out = []
    failed = False
    for case in sorted(cases, key=lambda case: not case.urgent):
        if time.monotonic() > deadline:
            left_out.append(case)
            continue
        try:
            for group in bench.rows(case):
                rows += group
                bench.log(group_line(group))
                if out is not None:
                    append_rows(SpeedRow, out, group)
        except RuntimeError as error:  # a kernel that does not compile or run, or too little memory
            failed = True
            bench.log(f"FAILED: {case.title}: {type(error).__name__}: {error}")
        if bench.plan.cuda:
            gc.collect()  # compiled functions are in cycles, which keep their example inputs alive
            torch.cuda.empty_cache()
    for case in left_out:
        bench.log(f"left out, the minutes are over: {case.title}")
    return rows, failed


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:  # nan is refused too
        raise argparse.ArgumentTypeError(f"{text} is not a number of minutes")
    return value


def _parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument("--only", action="append", choices=list(BENCHES), help="one kind; repeatable")
    parser.add_argument("--case", action="append", metavar="NAME", help="one op, block or net; repeatable")
    parser.add_argument("--mode", action="append", metavar="NAME", help="one mode, such as inference; repeatable")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and two rounds, to check that every case runs")
    parser.add_argument("--compile", action="store_true", help="also time both sides under torch.compile")
    parser.add_argument("--minutes", type=_minutes, default=15.0, help="no case starts later (default %(default)g)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the CSV file to append the rows to")
    return parser


if __name__ == "__main__":
    sys.exit(main())
