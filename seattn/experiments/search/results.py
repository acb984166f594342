"""The files of a search: trials.csv, best.yaml, a table of the best trials, and the weights of the three best."""

import json
from collections.abc import Sequence
from pathlib import Path

import yaml
from optuna.trial import FrozenTrial, TrialState
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from seattn.core.errors import counted
from seattn.core.files import write_text
from seattn.core.records import csv_text
from seattn.experiments.search.space import Search
from seattn.experiments.search.study import folder_of, number_of
from seattn.training.run_dir import read_summary

WITH_WEIGHTS = 3
_SHOWN = 10
_WEIGHTS = ("*.pth.tar", "model.safetensors", "config.json")
_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "paused",
}


def ranked(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The complete trials, best first; of equal ones the earlier first."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return sorted(complete, key=lambda trial: (-(trial.value or 0.0), trial.number))


def write_results(out: Path, search: Search, trials: Sequence[FrozenTrial]) -> None:
    """Write trials.csv and, once a trial is complete, best.yaml; remove the weights of all but the best trials."""
    rows: list[Sequence[object]] = [
        ["trial", "state", "held_out_top1", "epochs", "train_seconds", *search.space, "reason"]
    ]
    for trial in trials:
        epochs = read_summary(folder_of(out, trial))
        score = trial.value if trial.value is not None else epochs[-1]["eval_top1"] if epochs else ""
        seconds = round(sum(row["train_seconds"] for row in epochs), 1)
        values = [trial.params.get(key, "") for key in search.space]
        reason = trial.user_attrs.get("reason", "")
        rows.append([number_of(trial), _STATES[trial.state], score, len(epochs), seconds, *values, reason])
    write_text(out / "trials.csv", csv_text(rows))
    best = ranked(trials)[:WITH_WEIGHTS]
    if best:
        recipe = yaml.safe_dump(search.recipe_of(best[0].params).to_dict(), sort_keys=False)
        write_text(out / "best.yaml", _head(out, search, trials, best[0]) + recipe)
    for trial in trials:
        if trial.state.is_finished() and trial not in best:
            for pattern in _WEIGHTS:
                for path in folder_of(out, trial).glob(pattern):
                    path.unlink(missing_ok=True)


def _head(out: Path, search: Search, trials: Sequence[FrozenTrial], best: FrozenTrial) -> str:
    result = json.loads((folder_of(out, best) / "result.json").read_text(encoding="utf-8"))
    interval = f"{100 * result['top1_low']:.2f} to {100 * result['top1_high']:.2f}, n = {result['n']:,}"
    return (
        f"# Trial {number_of(best)} of the search {search.name}: held-out top-1 {best.value:.2f} % (95 % interval "
        f"{interval}).\n"
        f"# The best of {counted(len(trials), 'trial')}, {len(ranked(trials))} of them complete, all scored on the "
        "same images:\n"
        "# optimistic, and more so with more trials. The test split has not been read. This command reads it once:\n"
        "#   seattn train best.yaml --data-dir DIR\n"
    )


def best_table(search: Search, trials: Sequence[FrozenTrial]) -> Table:
    """The best trials with their values and their held-out top-1 in per cent."""
    keys = [key.removeprefix("seattn.").removeprefix("model_kwargs.") for key in search.space]
    table = Table("trial", "top-1 %", *keys, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in table.columns:
        column.justify, column.overflow = "right", "fold"
    for trial in ranked(trials)[:_SHOWN]:
        values = [short(trial.params[key]) for key in search.space]
        table.add_row(str(number_of(trial)), f"{trial.value:.2f}", *map(Text, values))
    return table


def summary(trials: Sequence[FrozenTrial]) -> str:
    """The number of trials in each state, in one line."""
    counts = {name: sum(trial.state == state for trial in trials) for state, name in _STATES.items()}
    return f"{counted(len(trials), 'trial')}: " + ", ".join(
        f"{count} {name}" for name, count in counts.items() if count
    )


def short(value: object) -> str:
    """A float with three digits, any other value as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
