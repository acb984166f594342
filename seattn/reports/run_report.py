"""One page on one or several training runs: their curves, the confusions of their nets, and what a change gained."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev

from seattn.core.device import torch_device
from seattn.core.errors import UserError, did_you_mean
from seattn.core.files import require_writable
from seattn.reports.comparison import (
    add_class_changes,
    add_each,
    add_image_changes,
    add_one_class,
    add_pair_changes,
    add_runs,
    overall,
    tested_text,
    top1_text,
)
from seattn.reports.page import Headline, Page, Text, versions
from seattn.reports.runs import (
    FinishedRun,
    RunGroup,
    Split,
    check_comparable,
    check_held_out,
    group_runs,
    open_split,
    read_run,
    score_run,
    value_text,
)
from seattn.reports.sections import (
    add_classes,
    add_pairs,
    add_recipe,
    add_training,
    add_worst,
    confusions,
    score_text,
    score_tiles,
)

_WITHOUT_IMAGES = (
    "With --data-dir, the folder that the runs were trained on, this page also shows precision and recall by class, "
    "confusions, calibration, the hardest pairs, the worst images and, for several runs, what changed."
)


@dataclass(frozen=True)
class RunReport:
    """The files that were written, and the page's headline in plain text."""

    page: Path
    figures: tuple[Path, ...]
    headline: str


def report_runs(
    runs: Sequence[Path],
    *,
    data_dir: Path | None = None,
    split: str = "held-out",
    out: Path | None = None,
    labels: Sequence[str] | None = None,
    class_name: str | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> RunReport:
    """Write `out`/report.html and its figures as PNGs.

    Runs of one recipe with different seeds form one group; the first group is the "before" of the other groups. A run
    without weights, because it is still running or was killed, is shown with its curves only.

    Args:
        runs: folders of `seattn train` or `seattn finetune`.
        data_dir: the images; without them, the page has curves and facts only.
        split: "held-out" for the images that the runs chose by, "validation", or "test", which no choice should see.
        out: by default the folder `report` in the run's folder, or in the working directory for several runs.
        labels: names of the recipes, in order.
        class_name: the class to look at closely; by default the hardest class of the first run.
        progress: show a progress bar on stderr.

    Raises:
        UserError: if a file is missing or damaged, runs cannot be compared, or a folder cannot be written to. Nothing
            is written then.
    """
    if not runs:
        raise UserError("give at least one folder of a run")
    torch_device(device)
    groups = group_runs([read_run(path) for path in runs], labels)
    out = out or (runs[0] / "report" if len(runs) == 1 else Path("report"))
    scored = [run for group in groups for run in group.scored]
    images = open_split(scored, data_dir, split) if data_dir is not None and scored else None
    require_writable(out, keep=False)
    notes: list[str] = []
    if images is not None:
        groups, notes = _score(groups, images, split, device, progress=progress)
        _check_class(groups, class_name)
        # Groups with scores come first, so that a group has the same colour in figures of all groups and of these.
        groups.sort(key=lambda group: not group.scores)
    page = _build(groups, images, [*notes, *_notes(groups, images, split)], class_name)
    headline = _headline(groups, images)
    figures = page.write_with_figures(out / "report.html", _title(groups), headline)
    return RunReport(out / "report.html", figures, f"{headline.number} {headline.text}")


def _score(
    groups: Sequence[RunGroup], images: Split, split: str, device: str, *, progress: bool
) -> tuple[list[RunGroup], list[str]]:
    """The groups with their scores, and warnings about them."""
    scored: list[RunGroup] = []
    notes: list[str] = []
    for group in groups:
        scores = tuple(
            score_run(run, images, device, progress=f"scoring {run.name}" if progress else "") for run in group.scored
        )
        if split == "held-out":
            warnings = [
                (run, check_held_out(run, score.evaluation)) for run, score in zip(group.scored, scores, strict=True)
            ]
            notes += [f"{run.name}: {warning}" for run, warning in warnings if warning]
        scored.append(replace(group, scores=scores))
    check_comparable(
        [score for group in scored for score in group.scores], [run for group in scored for run in group.scored]
    )
    return scored, notes


def _check_class(groups: Sequence[RunGroup], class_name: str | None) -> None:
    names = next(group.scores[0].evaluation.class_names for group in groups if group.scores)
    if class_name is not None and class_name not in names:
        raise UserError(f"the runs have no class {class_name!r}; {did_you_mean(class_name, names)}")


def _notes(groups: Sequence[RunGroup], images: Split | None, split: str) -> list[str]:
    """The notes that a reader of the page must see first."""
    runs = [run for group in groups for run in group.runs]
    notes = []
    if images is not None and split == "test":
        notes.append("The test split was read for this page: do not choose anything by what it shows.")
    if len({(run.recipe.seattn.holdout, run.recipe.seattn.holdout_seed) for run in runs}) > 1:
        notes.append("The runs held out different images: the accuracies of the curves are not of the same images.")
    notes += [
        f"{run.name} has no weights ({len(run.history)} of {run.planned} epochs): only its curves are shown."
        for run in runs
        if not run.has_weights
    ]
    if images is None and any(run.has_weights for run in runs):
        notes.append(_WITHOUT_IMAGES)
    return notes


def _build(groups: Sequence[RunGroup], images: Split | None, notes: Sequence[str], class_name: str | None) -> Page:
    scored = [group for group in groups if group.scores]
    page = Page()
    page.add("", *(Text(note, "note") for note in notes))
    if sum(len(group.runs) for group in groups) > 1:
        add_runs(page, groups)
    add_training(page, groups)
    if len(scored) > 1:
        add_class_changes(page, scored)
        add_one_class(page, scored, class_name)
        add_pair_changes(page, scored)
        add_image_changes(page, scored)
        add_each(page, scored)
    elif scored:
        _add_net(page, scored[0], class_name)
    add_recipe(page, groups)
    return page


def _add_net(page: Page, group: RunGroup, class_name: str | None) -> None:
    """The sections on one net: that of the group's first run with weights."""
    scores, seed = group.scores[0], group.scored[0].recipe.seed
    name = f"{group.label}, seed {seed}" if len(group.runs) > 1 else group.label
    if len(group.runs) > 1:
        text = f"All sections below are about seed {seed}, except the one class: this is the mean of all seeds."
        page.add("", Text(text, "note"))
    add_classes(page, scores, name)
    add_one_class(page, [group], class_name)
    page.add("Confusions and calibration", confusions(page, scores, name))
    add_pairs(page, scores, name)
    add_worst(page, scores, name)


def _title(groups: Sequence[RunGroup]) -> str:
    if len(groups) > 2:
        return f"{len(groups)} recipes"
    return " against ".join(group.label for group in reversed(groups))


def _headline(groups: Sequence[RunGroup], images: Split | None) -> Headline:
    scored = [group for group in groups if group.scores]
    first = (scored or groups)[0]
    tiles: dict[str, str] = {}
    if len(scored) > 1:
        number, text = _difference(scored)
        for group in scored:
            tested = tested_text(group)
            tiles |= {f"{group.label}, test": tested} if tested else {}
            tiles[group.label] = top1_text(group)
    elif len(groups) == 1 and first.test_top1s:
        number, text = _test_score(first)
        if scored:
            evaluation = first.scores[0].evaluation
            tiles = {f"top-1, {evaluation.n:,} images below": top1_text(first), **score_tiles(evaluation)}
    elif scored:
        number, text = _images_score(first)
        tiles = score_tiles(first.scores[0].evaluation)
    else:
        number, text = _logged_score(groups)
    return Headline(number, text, tiles, _facts(groups, images))


def _difference(groups: Sequence[RunGroup]) -> tuple[str, str]:
    """The largest gain over the first group on the page's images."""
    rows = overall(groups)
    best = max(range(len(rows)), key=lambda index: rows[index].change)
    row = rows[best]
    p = "" if row.p is None else f", McNemar's p {row.p:.2g}"
    which = f"{groups[best + 1].label} against {groups[0].label}"
    largest = "" if len(groups) == 2 else ", the largest gain of all"
    return f"{100 * row.change:+.1f}", (
        f"points of top-1 accuracy: {which}{largest}; 95% interval {100 * row.low:+.1f} to {100 * row.high:+.1f} on "
        f"the same {row.n:,} images{p}"
    )


def _test_score(group: RunGroup) -> tuple[str, str]:
    """The score on the test split that the runs recorded."""
    results = [run.tested for run in group.runs if run.tested is not None]
    n = f"top-1 accuracy on {results[0].n:,} test images, as the run recorded it"
    if len(results) > 1:
        spread = stdev(group.test_top1s)
        return f"{fmean(group.test_top1s):.1%}", f"{n}; mean of {len(results)} seeds ± {spread:.1%}"
    return f"{results[0].top1:.1%}", f"{n}; 95% interval {results[0].top1_low:.1%} to {results[0].top1_high:.1%}"


def _images_score(group: RunGroup) -> tuple[str, str]:
    """The score on the page's images."""
    evaluation, seeds = group.scores[0].evaluation, len(group.scores)
    if seeds == 1:
        return f"{evaluation.top1:.1%}", score_text(evaluation)
    spread = f"mean of {seeds} seeds ± {stdev(group.top1s):.1%}"
    return f"{fmean(group.top1s):.1%}", f"top-1 accuracy on {evaluation.n:,} images, {spread}"


def _logged_score(groups: Sequence[RunGroup]) -> tuple[str, str]:
    """The best accuracy at the end of a log; for runs without held-out images the last training loss."""
    runs = [run for group in groups for run in group.runs]
    top1s = [run.history[-1]["eval_top1"] for run in runs if run.holds_out]
    where = "as the run logged it" if len(runs) == 1 else "the best of all runs, as logged"
    if top1s:
        return f"{max(top1s):.1f}%", f"top-1 accuracy after the last epoch on the held-out images, {where}"
    losses = [run.history[-1]["train_loss"] for run in runs]
    return f"{min(losses):.3f}", f"training loss after the last epoch, {where}; no images held out"


def _facts(groups: Sequence[RunGroup], images: Split | None) -> dict[str, str]:
    runs = [run for group in groups for run in group.runs]
    facts = {"images": images.description} if images is not None else {}
    if len(runs) == 1:
        facts |= _run_facts(runs[0], groups[0])
    conditions = [run.result.conditions for run in runs if run.result is not None]
    machines = dict.fromkeys(
        f"{c.machine}, torch {c.torch}, timm {c.timm}, seattn {c.seattn} {c.commit}".rstrip() + f", {c.date}"
        for c in conditions
    )
    if machines:
        facts["trained on"] = "; ".join(machines)
    return {**facts, "page": versions()}


def _run_facts(run: FinishedRun, group: RunGroup) -> dict[str, str]:
    recipe, keys = run.recipe, run.recipe.seattn
    params = group.scores[0].params if group.scores else run.result.params if run.result else None
    loss = "focal" if keys.loss == "focal" else "binary cross entropy" if recipe.bce_loss else "cross entropy"
    loss += "" if keys.hardest == 1 else f" of the hardest {keys.hardest:.0%} of a batch"
    minutes = "" if run.seconds is None else f", {run.seconds / 60:,.0f} min in training steps"
    exported = "" if run.exported is None else f", weights of epoch {run.exported['epoch'] + 1:.0f}"
    facts = {
        "model": recipe.model + ("" if params is None else f", {params:,} parameters"),
        "recipe": (
            f"{recipe.opt}, learning rate {recipe.lr:g} ({recipe.sched}), batches of {recipe.batch_size}, {loss}, "
            f"class weights {value_text(keys.class_weights)}, seed {recipe.seed}; all keys are at the end of the page"
        ),
        "training": f"{len(run.history)} of {run.planned} epochs{exported}{minutes}",
    }
    if (row := run.result) is not None:
        held_out = f"{row.held_out_images:,} held out" if row.held_out_images else "no images held out"
        facts["result"] = (
            f"{row.top1:.2%} ({row.top1_low:.2%} to {row.top1_high:.2%}) on {row.n:,} {row.split} images, as the run "
            f"recorded it; trained on {row.train_images:,} images, {held_out}"
        )
    return facts
