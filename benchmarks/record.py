"""Append the rows of finished runs to benchmarks/results/accuracy.csv: `python -m benchmarks.record RUN_DIR…`."""

import argparse
import sys
from pathlib import Path

from benchmarks._record import ACCURACY, append_run
from seattn.errors import UserError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", nargs="+", type=Path)
    for run_dir in parser.parse_args().run_dir:
        try:
            row = append_run(run_dir)
        except UserError as error:
            print(f"record: {error}", file=sys.stderr)
            return 2
        print(f"{ACCURACY}: {row.name} {100 * row.top1:.2f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
