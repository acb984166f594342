"""A program in place of `seattn train`, which writes the files of a run at once: for tests of studies and searches.

`python fake_training.py CONFIG PID train RECIPE --data-dir DIR --out OUT …`; CONFIG is the file of `FakeTraining`.
"""

import csv
import fcntl
import json
import math
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import yaml


class FakeTraining:
    """Configures the program.

    Args:
        folder: an empty folder for its files.
        row: the fields of a result.json, of which the program replaces name, seed, top1 and its interval.
    """

    def __init__(self, folder: Path, row: dict[str, Any]) -> None:
        self.config, self.row = folder / "config.json", row
        self.command = (sys.executable, __file__, str(self.config))
        self.score("50.0 + epoch")

    def score(self, expression: str) -> None:
        """Give Python for the top-1 of `recipe` after `epoch` in `out` in per cent, or for the text of a failure."""
        self.config.write_text(json.dumps({"score": expression, "row": self.row}))

    def calls(self) -> list[dict[str, Any]]:
        """The recipe, the arguments and the trained epochs of each training that was started, in order."""
        files = sorted(self.config.parent.glob("call-*.json"), key=lambda path: path.stat().st_mtime_ns)
        return [json.loads(path.read_text()) for path in files]

    def forget(self) -> None:
        """Forget the calls so far."""
        for path in self.config.parent.glob("call-*.json"):
            path.unlink()


def end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.05)
    os._exit(1)


def write(path: Path, content: dict[str, Any]) -> None:
    path.with_suffix(".part").write_text(json.dumps(content))
    path.with_suffix(".part").replace(path)


def main(config_path: str, parent: str, _command: str, *arguments: str) -> None:
    threading.Thread(target=end_with, args=(int(parent),), daemon=True).start()
    config = json.loads(Path(config_path).read_text())
    recipe = yaml.safe_load(Path(arguments[0]).read_text())
    call: dict[str, Any] = {"recipe": recipe, "arguments": arguments[1:], "epochs": []}
    call_path = Path(config_path).with_name(f"call-{os.getpid()}.json")
    write(call_path, call)
    out = Path(arguments[arguments.index("--out") + 1])
    lock = (out / ".lock").open("a")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    summary = out / "summary.csv"
    rows: list[dict[str, Any]] = list(csv.DictReader(summary.open())) if summary.exists() else []
    for epoch in range(len(rows), recipe["epochs"]):
        score = eval(
            config["score"], {"recipe": recipe, "epoch": epoch, "out": out, "time": time, "os": os, "math": math}
        )
        if isinstance(score, str):
            sys.exit(f"log\nseattn: {score}")
        rows.append({"epoch": epoch, "eval_top1": score, "train_seconds": 1.0})
        with (out / "summary.part").open("w") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        (out / "summary.part").replace(summary)
        (out / "last.pth.tar").write_text("")
        call["epochs"].append(epoch)
        write(call_path, call)
    (out / "model.safetensors").write_text("")
    top1 = float(rows[-1]["eval_top1"]) / 100
    row = {**config["row"], "name": recipe["model"], "seed": recipe["seed"], "top1": top1}
    write(out / "result.json", {**row, "top1_low": top1, "top1_high": top1})


if __name__ == "__main__":
    main(*sys.argv[1:])
