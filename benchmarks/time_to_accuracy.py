"""Seconds of training to an accuracy: `python -m benchmarks.time_to_accuracy --target 94 --target 95.5 RUN_DIR…`.

Reads finished runs of one recipe with different seeds. A target is reached after the first epoch with at least that
held-out top-1 (of the averaged weights where there are any); the time is that of the training steps of all epochs up to
this one, without evaluation. Appends one row for each run and target to benchmarks/results/time-to-accuracy.csv, and
prints for each target how many runs reached it, the mean and the sample standard deviation of their times.
"""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks._command import Parser, command
from benchmarks.evidence.rows import RESULTS, read_run, recipe_of
from seattn.core import records
from seattn.core.errors import UserError
from seattn.core.rows import Conditions
from seattn.training.run_dir import read_summary

ROWS = RESULTS / "time-to-accuracy.csv"


@dataclass(frozen=True)
class TimeRow:
    """One run and one target.

    Args:
        held_out_top1, target: in 0..1; the first is that of the last epoch.
        epochs, seconds: None where the target was not reached.
    """

    name: str
    recipe: str
    dataset: str
    seed: int
    held_out_images: int
    held_out_top1: float
    target: float
    epochs: int | None
    seconds: float | None
    conditions: Conditions


def time_rows(run_dir: Path, targets: Sequence[float]) -> list[TimeRow]:
    """The rows of a finished run, one for each target (0..1).

    Raises:
        UserError: if the run is not finished, or one of its files is damaged.
    """
    result, history = read_run(run_dir), read_summary(run_dir)
    if result.held_out_top1 is None:
        raise UserError(f"{run_dir} held out no images, so the time to an accuracy is not known")
    rows = []
    for target in targets:
        reached = next((i for i, row in enumerate(history) if row["eval_top1"] >= 100 * target), None)
        rows.append(
            TimeRow(
                name=result.name,
                recipe=recipe_of(run_dir),
                dataset=result.dataset,
                seed=result.seed,
                held_out_images=result.held_out_images,
                held_out_top1=result.held_out_top1,
                target=target,
                epochs=None if reached is None else reached + 1,
                seconds=None if reached is None else sum(row["train_seconds"] for row in history[: reached + 1]),
                conditions=result.conditions,
            )
        )
    return rows


def summary(rows: Sequence[TimeRow], target: float) -> str:
    """One line on the times of all runs to `target`."""
    times = [row.seconds for row in rows if row.target == target and row.seconds is not None]
    runs = sum(row.target == target for row in rows)
    text = f"{100 * target:g} %: reached by {len(times)} of {runs} runs"
    if times:
        spread = f" ± {statistics.stdev(times):.1f}" if len(times) > 1 else ""
        text += f", {statistics.mean(times):.1f}{spread} s of training"
    return text


@command("time_to_accuracy")
def main(arguments: Sequence[str] | None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("--target", type=float, action="append", required=True, help="top-1 in per cent; repeatable")
    parser.add_argument("run_dir", nargs="+", type=Path)
    args = parser.parse_args(arguments)
    targets = [target / 100 for target in args.target]
    if not all(0 < target <= 1 for target in targets):
        raise UserError(f"--target is top-1 in per cent, above 0 and up to 100, got {args.target}")
    rows = [row for run_dir in args.run_dir for row in time_rows(run_dir, targets)]
    if len({row.recipe for row in rows}) > 1:
        raise UserError(f"give runs of one recipe; these are of {sorted({row.recipe for row in rows})}")
    if len({row.seed for row in rows}) < len(args.run_dir):
        raise UserError("two of the runs have the same seed, so they are not independent")
    before = records.read_rows(TimeRow, ROWS)
    records.append_rows(TimeRow, ROWS, [row for row in rows if row not in before])
    for target in targets:
        print(summary(rows, target))
    return 0


if __name__ == "__main__":
    sys.exit(main())
