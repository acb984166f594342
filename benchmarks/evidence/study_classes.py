"""Results of a study's variants by class: benchmarks/results/ablations/<study>.classes.json, and a table of them.

Shapes: K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seattn.core.errors import UserError
from seattn.core.files import write_text
from seattn.core.records import dump, parse, read_json
from seattn.evaluation.statistics import compare, summarize
from seattn.experiments.study.results import StudyResult, StudyRow
from seattn.experiments.study.tables import points
from seattn.reports.runs import open_split, read_run, score_run

Matrix = npt.NDArray[np.int64]


@dataclass(frozen=True)
class StudyClasses:
    """`runs`: by run, the (K, K) counts of its held-out images by [true][predicted] class."""

    class_names: tuple[str, ...]
    runs: dict[str, tuple[tuple[int, ...], ...]]

    def counts(self, run: str) -> Matrix:
        """The counts of that run, (K, K)."""
        return np.array(self.runs[run])


def classes_file(study: str, rows: Path) -> Path:
    """The file of a study, beside its rows in the folder `rows`."""
    return rows / f"{study}.classes.json"


def read_study_classes(study: str, rows: Path) -> StudyClasses | None:
    """The results of the study by class; None if there are none yet."""
    path = classes_file(study, rows)
    return parse(StudyClasses, read_json(path), path) if path.exists() else None


def look_at_classes(new: Sequence[StudyRow], runs: Path, data_dir: Path, rows: Path) -> Path:
    """Score the runs of the rows `new` by class, add the counts to the study's file, and return its path.

    Args:
        runs: the folder of the runs.

    Raises:
        UserError: if a run has no weights, or their accuracy on these images is not that of its row.
    """
    study = new[0].study
    path = classes_file(study, rows)
    before = read_study_classes(study, rows) or StudyClasses((), {})
    names, counts = before.class_names, dict(before.runs)
    for row in new:
        run = read_run(runs / row.run)
        scores = score_run(run, open_split([run], data_dir, "held-out"), "cpu").evaluation
        if abs(scores.top1 - row.result.top1) > 1.5 / scores.n or scores.n != row.result.n:
            raise UserError(
                f"{run.path} scores {scores.top1:.2%} of {scores.n:,} images in {data_dir}, its row says "
                f"{row.result.top1:.2%} of {row.result.n:,}: these are not the images of the run"
            )
        if names and scores.class_names != names:
            raise UserError(f"{run.path} has other classes than {path}")
        names = scores.class_names
        counts[row.run] = scores.confusion
    write_text(path, dump(asdict(StudyClasses(names, dict(sorted(counts.items()))))))
    return path


def render_hardest(result: StudyResult, classes: StudyClasses) -> str:
    """Markdown: how each variant changes the hardest class of the study's reference, and the class it is mistaken for.

    The hardest class is that of the least recall. Differences are paired by seed, in points.
    """
    runs = {
        variant.name: {
            row.result.seed: classes.counts(row.run)
            for row in result.rows
            if row.variant == variant.name and row.run in classes.runs
        }
        for variant in result.variants
    }
    reference = runs[result.reference]
    if not reference:
        return ""
    total = sum(reference.values(), start=np.zeros((len(classes.class_names),) * 2, dtype=np.int64))  # (K, K)
    with np.errstate(invalid="ignore"):
        hardest = int(np.nanargmin(total.diagonal() / total.sum(1)))
    mistakes = np.where(np.arange(len(total)) == hardest, -1, total[hardest])
    confused = int(mistakes.argmax())
    name, other = classes.class_names[hardest], classes.class_names[confused]
    columns: dict[str, Callable[[Matrix], float]] = {}
    for k, label in ((hardest, name), (confused, other)):
        columns[f"recall of {label} %"] = partial(_share, k, 1)
        columns[f"precision of {label} %"] = partial(_share, k, 0)
    text = [
        f"`{result.reference}` has its lowest recall for {name}, which it most often takes for {other}: "
        f"{total[hardest, confused] / len(reference):.1f} of {total[hardest].sum() // len(reference)} images a run. "
        "In brackets: the difference from it in points, with a 95 % t interval, not corrected for the number of "
        "comparisons.",
        "",
        f"| variant | n | {' | '.join(columns)} |",
        "| --- | --- |" + " --- |" * len(columns),
    ]
    for variant, by_seed in runs.items():
        against = None if variant == result.reference else reference
        cells = [_cell(by_seed, against, value) for value in columns.values()]
        text.append(f"| {variant} | {len(by_seed)} | {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def _share(k: int, axis: int, counts: Matrix) -> float:
    """The percentage of correct predictions among class k's images (axis 1), or among predictions of k (axis 0)."""
    whole = int(counts.sum(axis)[k])
    return 100 * int(counts[k, k]) / whole if whole else 0.0


def _cell(by_seed: Mapping[int, Matrix], against: Mapping[int, Matrix] | None, value: Callable[[Matrix], float]) -> str:
    if not by_seed:
        return "-"
    own = summarize([value(m) for m in by_seed.values()])
    text = points(own.mean, sign=False) + ("" if own.std is None else f" ± {points(own.std, sign=False)}")
    seeds = [seed for seed in by_seed if against is not None and seed in against]
    if against is None or not seeds:
        return text
    d = compare([value(by_seed[seed]) for seed in seeds], [value(against[seed]) for seed in seeds])
    interval = "" if d.low is None or d.high is None else f", {points(d.low)} to {points(d.high)}"
    return f"{text} ({points(d.mean)}{interval})"
