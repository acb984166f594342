"""One page on one or several training runs: how they learned, what their nets confuse, and what a change changed."""

import difflib
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, stdev

import timm
import torch

from seattn.core.device import torch_device
from seattn.core.errors import UserError
from seattn.core.files import require_writable, write_text
from seattn.reports.comparison import (
    add_class_changes,
    add_each,
    add_hardest_class,
    add_image_changes,
    add_pair_changes,
    add_runs,
    group_top1,
    overall,
)
from seattn.reports.page import Pages, definitions, note
from seattn.reports.plots import curves_plot
from seattn.reports.runs import (
    FinishedRun,
    Group,
    Split,
    check_comparable,
    check_held_out,
    group_runs,
    open_split,
    read_run,
    score_run,
    value_text,
)
from seattn.reports.sections import add_classes, add_pairs, add_recipe, add_worst, confusions_html

_WITHOUT = (
    "With --data-dir, the folder that the runs were trained on, this page also shows precision and recall by class, "
    "confusions, calibration, the hardest pairs, the worst images and, of several runs, what changed."
)


@dataclass(frozen=True)
class RunReport:
    """What was written: the page, the figures beside it, and the page's headline in plain text."""

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
) -> RunReport:
    """Write `out`/report.html and its figures as PNGs.

    Runs of one recipe and different seeds are put together; of several recipes the first is the "before" of the others.
    A run without weights, one that goes on or was killed, has its curves only.

    Args:
        runs: folders of `seattn train` or `seattn finetune`.
        data_dir: the images; None leaves curves and facts.
        split: "held-out", the images that the runs chose by; "validation"; or "test", which no choice should see.
        out: by default `report` in the run's folder, or in this one where there are several.
        labels: names of the recipes, in order.
        class_name: the class that is looked at closely; by default the hardest of the first run.

    Raises:
        UserError: for a missing or damaged file, runs that cannot be compared, or a folder that cannot be written to;
            nothing is written then.
    """
    if not runs:
        raise UserError("give at least one folder of a run")
    torch_device(device)
    groups = group_runs([read_run(path) for path in runs], labels)
    out = out or (runs[0] / "report" if len(runs) == 1 else Path("report"))
    scored = [run for group in groups for run in group.scored]
    images = open_split(scored, data_dir, split) if data_dir is not None and scored else None
    require_writable(out)
    notes: list[str] = []
    if images is not None:
        groups, notes = _scored(groups, images, split, device)
        _check_class(groups, class_name)
        groups.sort(key=lambda group: not group.scores)  # stable: one colour a group, in figures of all or of these
    return _write(groups, images, split, notes, class_name, out)


def _scored(groups: list[Group], images: Split, split: str, device: str) -> tuple[list[Group], list[str]]:
    """The groups with their scores, and what must be said of them."""
    found: list[Group] = []
    notes: list[str] = []
    for group in groups:
        scores = [score_run(run, images, device) for run in group.scored]
        if split == "held-out":
            checks = [(run, check_held_out(run, score)) for run, score in zip(group.scored, scores, strict=True)]
            notes += [f"{run.name}: {said}" for run, said in checks if said]
        found.append(replace(group, scores=tuple(scores)))
    check_comparable([s for group in found for s in group.scores], [run for group in found for run in group.scored])
    return found, notes


def _check_class(groups: Sequence[Group], wanted: str | None) -> None:
    names = next(group.scores[0].evaluation.class_names for group in groups if group.scores)
    if wanted is not None and wanted not in names:
        near = difflib.get_close_matches(wanted, names, n=3) or names[:3]
        raise UserError(f"the runs have no class {wanted!r}; they have {', '.join(near)} …")


def _write(
    groups: list[Group], images: Split | None, split: str, notes: list[str], class_name: str | None, out: Path
) -> RunReport:
    scored = [group for group in groups if group.scores]
    pages, several = Pages(), sum(len(group.runs) for group in groups) > 1
    if images is not None and split == "test":
        notes.append("The test split was read for this page: choose nothing by what it shows.")
    if len({(run.recipe.seattn.holdout, run.recipe.seattn.holdout_seed) for g in groups for run in g.runs}) > 1:
        notes.append("The runs held out different images: the curves' accuracies are not of the same ones.")
    notes += [
        f"{run.name} has left no weights ({len(run.history)} of {run.planned} epochs): its curves only."
        for group in groups
        for run in group.runs
        if not run.has_weights
    ]
    if images is None and any(group.scored for group in groups):
        notes.append(_WITHOUT)
    pages.add("", *map(note, notes))
    if several:
        add_runs(pages, groups)
    _add_training(pages, groups)
    if len(scored) > 1:
        add_class_changes(pages, scored)
        add_hardest_class(pages, scored, class_name)
        add_pair_changes(pages, scored)
        add_image_changes(pages, scored)
        add_each(pages, scored)
    elif scored:
        _add_net(pages, scored[0], class_name)
    add_recipe(pages, groups)
    number, text = _headline(scored or groups)
    title = " against ".join([groups[1].label, groups[0].label]) if len(groups) == 2 else groups[0].label
    title = title if len(groups) <= 2 else f"{len(groups)} recipes"
    head = (
        f'<div class="headline"><strong>{escape(number)}</strong><span>{escape(text)}</span></div>\n'
        f'<dl class="tiles">{definitions(_tiles(scored))}</dl>\n'
        f'<dl class="facts">{definitions(_facts(groups, images), wrap=False)}</dl>'
    )
    figures = []
    for name, plot in pages.plots.items():
        figures.append(out / f"{name}.png")
        plot.write_png(figures[-1])
    write_text(out / "report.html", pages.html(title, head))
    return RunReport(out / "report.html", tuple(figures), f"{number} {text}")


def _add_training(pages: Pages, groups: list[Group]) -> None:
    text = "Training loss is the recipe's own, with its smoothing, mixing and weights, on augmented images."
    pages.add("Training", pages.figure("curves", curves_plot(groups), wide=True), note=text)


def _add_net(pages: Pages, group: Group, class_name: str | None) -> None:
    """The sections on one net: the group's first with weights."""
    scores, run = group.scores[0], group.scored[0]
    name = f"{group.label}, seed {run.recipe.seed}" if len(group.runs) > 1 else group.label
    if len(group.runs) > 1:
        pages.add("", note(f"All below is of seed {run.recipe.seed}, except the one class: the mean of all seeds."))
    add_classes(pages, scores, name)
    add_hardest_class(pages, [group], class_name)
    pages.add("Confusions and calibration", confusions_html(pages, scores, name))
    add_pairs(pages, scores, name)
    add_worst(pages, scores, name)


def _headline(groups: Sequence[Group]) -> tuple[str, str]:
    """The page's one number, and what it is."""
    first = groups[0]
    if not first.scores:
        best = max(run.history[-1]["eval_top1"] for group in groups for run in group.runs)
        where = "as the run logged it" if len(groups) == len(first.runs) == 1 else "the best of them, as logged"
        return f"{best:.1f}%", f"top-1 accuracy after the last epoch on the held-out images, {where}"
    n = first.scores[0].evaluation.n
    if len(groups) == 1:
        found = first.scores[0].evaluation
        if len(first.scores) > 1:
            return (
                f"{fmean(first.top1s):.1%}",
                f"top-1 accuracy on {n:,} images, mean of {len(first.scores)} seeds ± {stdev(first.top1s):.1%}",
            )
        interval = f"{found.top1_low:.1%} to {found.top1_high:.1%}"
        return f"{found.top1:.1%}", f"top-1 accuracy on {n:,} images, 95% interval {interval}"
    found_ = overall(groups)
    best_at = max(range(len(found_)), key=lambda i: found_[i].change)
    one = found_[best_at]
    p = "" if one.p is None else f", McNemar's p {one.p:.2g}"
    which = f"{groups[best_at + 1].label} against {first.label}"
    most = "" if len(groups) == 2 else ", the largest gain of all"
    text = (
        f"points of top-1 accuracy: {which}{most}; 95% interval {100 * one.low:+.1f} to {100 * one.high:+.1f} on the "
        f"same {n:,} images{p}"
    )
    return f"{100 * one.change:+.1f}", text


def _tiles(groups: Sequence[Group]) -> dict[str, str]:
    if not groups:
        return {}
    if len(groups) > 1:
        return {group.label: group_top1(group) for group in groups}
    found = groups[0].scores[0].evaluation
    top = f"top-{min(5, len(found.class_names))}"
    return {top: f"{found.top5:.1%}", "cross-entropy": f"{found.loss:.3f}", "calibration error": f"{found.ece:.3f}"}


def _facts(groups: Sequence[Group], images: Split | None) -> dict[str, str]:
    runs = [run for group in groups for run in group.runs]
    facts = {"images": images.what} if images is not None else {}
    if len(runs) == 1:
        facts |= _facts_of(runs[0], groups[0])
    measured = dict.fromkeys(
        f"{row.conditions.machine}, torch {row.conditions.torch}, timm "
        f"{row.conditions.timm}, seattn {row.conditions.seattn} {row.conditions.commit}".rstrip()
        + f", {row.conditions.date}"
        for row in (run.result for run in runs)
        if row is not None
    )
    if measured:
        facts["trained on"] = "; ".join(measured)
    facts["page"] = (
        f"seattn {version('seattn')}, timm {timm.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}"
    )
    return facts


def _facts_of(run: FinishedRun, group: Group) -> dict[str, str]:
    recipe, ours = run.recipe, run.recipe.seattn
    params = group.scores[0].params if group.scores else run.result.params if run.result else None
    loss = "focal" if ours.loss == "focal" else "binary cross entropy" if recipe.bce_loss else "cross entropy"
    minutes = "" if run.seconds is None else f", {run.seconds / 60:,.0f} min in training steps"
    exported = run.exported
    shipped = "" if exported is None else f", weights of epoch {exported['epoch'] + 1:.0f}"
    facts = {
        "model": recipe.model + ("" if params is None else f", {params:,} parameters"),
        "recipe": (
            f"{recipe.opt}, learning rate {recipe.lr:g} ({recipe.sched}), batches of {recipe.batch_size}, {loss}, "
            f"class weights {value_text(ours.class_weights)}, seed {recipe.seed}; every key below"
        ),
        "training": f"{len(run.history)} of {run.planned} epochs{shipped}{minutes}",
    }
    if (row := run.result) is not None:
        facts["result"] = (
            f"{row.top1:.2%} ({row.top1_low:.2%} to {row.top1_high:.2%}) on {row.n:,} {row.split} images, as the run "
            f"recorded it; trained on {row.train_images:,} images, {row.held_out_images:,} held out"
        )
    return facts
