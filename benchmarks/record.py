"""Take what finished runs measured into the project: `python -m benchmarks.record [--ship] RUN_DIR…`.

Appends each run's row to benchmarks/results/accuracy.csv; --ship also puts its weights into the package, with their
SHA-256 in the index. `make cards` renders the rest.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks._command import Parser, command
from benchmarks._record import ACCURACY, append_run
from seattn._files import atomic_path, sha256, write_text
from seattn.errors import UserError
from seattn.models._pretrained import WEIGHTS


def ship(run_dir: Path, name: str, weights: Path = WEIGHTS) -> None:
    """Copy the run's model.safetensors to `weights`/`name`.safetensors and record it in `weights`/index.json."""
    target = weights / f"{name}.safetensors"
    with atomic_path(target) as part:
        shutil.copyfile(run_dir / "model.safetensors", part)
    index = json.loads((weights / "index.json").read_text(encoding="utf-8"))
    index[name] = {"file": target.name, "sha256": sha256(target)}
    write_text(weights / "index.json", json.dumps(dict(sorted(index.items())), indent=2) + "\n")


@command("record")
def main(arguments: Sequence[str] | None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("--ship", action="store_true", help="put the weights into the package too")
    parser.add_argument("run_dir", nargs="+", type=Path)
    args = parser.parse_args(arguments)
    for run_dir in args.run_dir:
        if args.ship and not (run_dir / "model.safetensors").is_file():
            raise UserError(f"{run_dir} holds no model.safetensors to ship; its row is not appended")
        row = append_run(run_dir)
        if args.ship:
            ship(run_dir, row.name)
        print(f"{ACCURACY}: {row.name} {100 * row.top1:.2f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
