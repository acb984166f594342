"""What a search leaves to read: trials.csv, best.yaml, a table; and of its trials' runs, what is worth its space.

The runs of the three best trials stay whole. Of the others weights and checkpoints go; recipe, log and result stay.
"""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import yaml
from optuna.trial import FrozenTrial, TrialState
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from seattn.core.files import write_text
from seattn.experiments.search.space import Search
from seattn.experiments.search.trials import trial_dir

KEPT = 3
_SHOWN = 10
_WEIGHTS = ("*.pth.tar", "model.safetensors", "config.json")


def ranked(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The whole trials, best first; of equal ones the earlier."""
    return sorted((t for t in trials if t.state == TrialState.COMPLETE), key=lambda t: (-(t.value or 0.0), t.number))


def tidy(out: Path, trials: Sequence[FrozenTrial]) -> None:
    """Remove the weights of the trials that have ended and are not among the best."""
    best = {trial.number for trial in ranked(trials)[:KEPT]}
    for trial in trials:
        if trial.state.is_finished() and trial.number not in best:
            for pattern in _WEIGHTS:
                for path in trial_dir(out, trial.number).glob(pattern):
                    path.unlink(missing_ok=True)


def write_tables(out: Path, search: Search, trials: Sequence[FrozenTrial]) -> None:
    """trials.csv, and best.yaml once a trial is whole."""
    text = io.StringIO()
    keys = list(search.space)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "held_out_top1", "epochs", "train_seconds", *keys, "reason"])
    for trial in trials:
        values = [trial.params.get(key, "") for key in keys]
        score = trial.value if trial.state.is_finished() else last_score(trial)
        state = trial.state.name.lower()
        epochs = read_summary(trial_dir(out, trial.number))
        seconds = round(sum(row["train_seconds"] for row in epochs), 1)
        reason = trial.user_attrs.get("reason", "")
        writer.writerow([trial.number, state, "" if score is None else score, len(epochs), seconds, *values, reason])
    write_text(out / "trials.csv", text.getvalue())
    if best := ranked(trials)[:1]:
        recipe = yaml.safe_dump(search.recipe_of(best[0].params).to_dict(), sort_keys=False)
        write_text(out / "best.yaml", _head(out, search, trials, best[0]) + recipe)


def last_score(trial: FrozenTrial) -> float | None:
    """The held-out top-1 in percent where the trial stands."""
    return trial.intermediate_values[trial.last_step] if trial.last_step is not None else None


def read_summary(run: Path) -> list[dict[str, float]]:
    """A row an epoch of a trial's run, none if it has not begun."""
    path = run / "summary.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _head(out: Path, search: Search, trials: Sequence[FrozenTrial], best: FrozenTrial) -> str:
    path, interval = trial_dir(out, best.number) / "result.json", ""
    if path.exists():
        result = json.loads(path.read_text(encoding="utf-8"))
        low, high = 100 * result["top1_low"], 100 * result["top1_high"]
        interval = f" (95 % interval {low:.2f} to {high:.2f}, n = {result['n']:,})"
    whole = len(ranked(trials))
    return (
        f"# Trial {best.number} of the search {search.name}: held-out top-1 {best.value:.2f} %{interval}.\n"
        f"# The best of {len(trials)} trials, {whole} of them whole, all judged on the same images: optimistic, the\n"
        "# more so the more trials. The test split has not been read; this reads it once:\n"
        "#   seattn train best.yaml --data-dir DIR\n"
    )


def best_table(search: Search, trials: Sequence[FrozenTrial]) -> Table:
    """The best trials and the values they were given; held-out top-1 in percent."""
    keys = [key.removeprefix("seattn.").removeprefix("model_kwargs.") for key in search.space]
    table = Table("trial", "top-1 %", *keys, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in table.columns:
        column.justify, column.overflow = "right", "fold"
    for trial in ranked(trials)[:_SHOWN]:
        values = [short(trial.params[key]) for key in search.space]
        table.add_row(str(trial.number), f"{trial.value:.2f}", *map(Text, values))
    return table


def summary(trials: Sequence[FrozenTrial]) -> str:
    """How many trials ended how, in one line."""
    names = {
        TrialState.COMPLETE: "whole",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
        TrialState.RUNNING: "to be gone on with",
    }
    counts = {name: sum(trial.state == state for trial in trials) for state, name in names.items()}
    return f"{len(trials)} trials: " + ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def short(value: object) -> str:
    """A value in three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
