"""Add a study's rows to the project: `python -m benchmarks.study OUT/<study>/rows.csv …`.

OUT/<study> is a folder that `seattn ablate` wrote. Its rows are added to benchmarks/results/ablations/<study>.csv; the
row of a run that is already there is replaced. Only runs of a shipped study by committed code are accepted, all rows of
a file or none. With --data-dir the runs are also scored by class, on their held-out images, for the
table of the hardest class. `make cards` renders the documents.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks._command import Parser, command
from benchmarks.evidence.studies import ROWS, STUDIES, check_rows
from benchmarks.evidence.study_classes import look_at_classes
from seattn.core.errors import UserError
from seattn.experiments.study.design import load_ablation
from seattn.experiments.study.results import read_rows, rows_of, write_rows


def take(path: Path, rows: Path = ROWS, studies: Path = STUDIES) -> Path:
    """Merge the rows of `path` into those of its study; return the file of the study.

    Raises:
        UserError: if there are none, or one is not accepted.
    """
    new = read_rows(path)
    if not new:
        raise UserError(f"{path} does not exist or holds no rows; seattn ablate writes them")
    name = new[0].study
    check_rows(name, new, studies)
    target = rows / f"{name}.csv"
    write_rows(target, rows_of(load_ablation(studies / f"{name}.yaml"), [*read_rows(target), *new]))
    return target


@command("study")
def main(arguments: Sequence[str] | None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("rows", nargs="+", type=Path, metavar="ROWS", help="rows.csv of a study")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="the images of the runs: also score by class")
    args = parser.parse_args(arguments)
    for path in args.rows:
        print(take(path))
        if args.data_dir is not None:
            print(look_at_classes(read_rows(path), path.parent.parent, args.data_dir, ROWS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
