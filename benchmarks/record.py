"""Take what finished runs measured into the project: `python -m benchmarks.record [--ship --data-dir DIR] RUN_DIR…`.

Appends each run's row to benchmarks/results/accuracy.csv; --ship also puts its weights into the package, matrices and
filters in half precision, and the row is then theirs: they are scored once more as they ship, on the whole test split
in DIR. `make cards` renders the rest.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks._command import Parser, command
from benchmarks._record import ACCURACY, append_row, read_run, recipe_of
from benchmarks._ship import place, score, write_half
from seattn.errors import UserError


@command("record")
def main(arguments: Sequence[str] | None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("--ship", action="store_true", help="put the weights into the package too")
    parser.add_argument("--data-dir", type=Path, help="with --ship: the folder that holds test/<class>/<image>")
    parser.add_argument("run_dir", nargs="+", type=Path)
    args = parser.parse_args(arguments)
    if args.ship and args.data_dir is None:
        raise UserError("--ship scores the weights as they ship: give --data-dir, the folder of the test split")
    for run_dir in args.run_dir:
        row = replace(read_run(run_dir), recipe=recipe_of(run_dir))
        if row.split != "test":
            raise UserError(f"{run_dir} was scored on its {row.split} part; only scores of a test split are taken")
        if not args.ship:
            append_row(row)
        else:
            with tempfile.TemporaryDirectory() as folder:
                half = Path(folder) / "model.safetensors"
                write_half(run_dir / "model.safetensors", half)
                row = score(row, half, args.data_dir)
                append_row(row)
                place(half, row.name)
        print(f"{ACCURACY}: {row.name} {100 * row.top1:.2f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
