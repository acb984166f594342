"""Check that a folder for the Hub is complete and that its weights and its card agree with the measured results.

Nothing in the folder is executed, and a size that a file states is compared with the size of the file before its use.
"""

from dataclasses import dataclass
from pathlib import Path

import yaml

from seattn.core.errors import UserError, first_line
from seattn.core.files import not_found, sha256
from seattn.evaluation.scoring import evaluate, wilson_interval
from seattn.hub.card import interval, percent
from seattn.hub.facts import Facts, staged_facts
from seattn.hub.golden import GOLDEN, TOLERANCE, check_golden
from seattn.hub.sums import check_sums
from seattn.models.checkpoints.folder import check_config, check_weights
from seattn.models.load import CONFIG, DIR_PREFIX, WEIGHTS, load_model

CARD = "README.md"
FILES = (CARD, CONFIG, WEIGHTS, "recipe.yaml", "results.json", GOLDEN)  # in each folder, beside SHA256SUMS
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Verification:
    """The checks that a folder passed, in order: (name of the check, its result), both for people to read."""

    checks: tuple[tuple[str, str], ...]


def verify(folder: Path, *, data_dir: Path | None = None) -> Verification:
    """Check a folder that `seattn hub stage` wrote, or a download of such a folder.

    Args:
        folder: with SHA256SUMS and the files that it lists; files that begin with a dot belong to the Hub and are
            ignored.
        data_dir: an image folder; the weights are also scored on its test split, and compared with the card.

    Raises:
        UserError: on the first check that fails, naming the file, the fault and the remedy.
    """
    if not folder.is_dir():
        raise UserError(f"{not_found('folder', folder)}; `seattn hub stage NAME {folder}` makes one")
    count = check_sums(folder, FILES)
    net = check_config(folder / CONFIG)
    weights = check_weights(folder / WEIGHTS, net)
    difference = check_golden(folder / GOLDEN, load_model(f"{DIR_PREFIX}{folder}"))
    facts = staged_facts(folder)
    checks = [
        ("checksums", f"{count} files are those that SHA256SUMS lists"),
        ("config.json", f"{net.num_classes} classes, each with a name"),
        ("weights", weights),
        ("golden outputs", f"within {difference:.1g} of the largest value; {TOLERANCE:g} is allowed"),
        ("results.json", _check_results(folder / "results.json", facts)),
        ("card", _check_card(folder / CARD, facts)),
    ]
    if data_dir is not None:
        checks.append(("accuracy", _check_accuracy(folder, facts, data_dir)))
    return Verification(tuple(checks))


def _check_card(path: Path, facts: Facts) -> str:
    """Compare the front matter and the table of the card with the row."""
    text = path.read_text(encoding="utf-8", errors="replace")
    _, front_matter, body = [*text.split("---\n", 2), "", ""][:3]
    try:
        (model,) = yaml.safe_load(front_matter)["model-index"]
        claims = {metric["name"]: metric["value"] for metric in model["results"][0]["metrics"]}
        top1 = float(claims["top-1"])
    except (yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: the front matter has no top-1 under model-index: {first_line(error)}") from error
    if (model.get("name"), top1) != (facts.name, facts.row.top1):
        raise UserError(
            f"{path} claims {top1:.2%} for {str(model.get('name'))[:60]!r}, results.json {facts.row.top1:.2%} for "
            f"{facts.name}; one of the two files belongs to other weights"
        )
    if f"| {percent(top1)} | {interval(facts.row)} |" not in body:
        raise UserError(f"{path}: the front matter says {top1:.2%}, but the table below does not")
    return f"claims {top1:.2%} top-1, as results.json does"


def _check_results(path: Path, facts: Facts) -> str:
    """Check that the numbers of results.json agree with each other, and belong to the weights beside the file."""
    row, classes = facts.row, facts.classes
    low, high = wilson_interval(round(row.top1 * row.n), row.n)
    if max(abs(low - row.top1_low), abs(high - row.top1_high)) > _ROUNDING:
        raise UserError(
            f"{path}: the 95 % interval of {row.top1:.2%} of {row.n:,} images is {low:.2%} to {high:.2%}, not "
            f"{row.top1_low:.2%} to {row.top1_high:.2%}"
        )
    if classes is None:
        return f"{row.top1:.2%} of {row.n:,} images and its interval agree; no results of each class"
    if classes.sha256 != sha256(path.parent / WEIGHTS):
        raise UserError(f"{path}: the results of each class belong to another {WEIGHTS}; stage the folder again")
    if (classes.n, classes.correct) != (row.n, round(row.top1 * row.n)):
        raise UserError(
            f"{path}: by the classes {classes.correct:,} of {classes.n:,} images are correct, by the row {row.top1:.2%}"
        )
    k = len(classes.class_names)
    return f"{row.top1:.2%} of {row.n:,} images, its interval and the confusion matrix of {k} classes agree"


def _check_accuracy(folder: Path, facts: Facts, data_dir: Path) -> str:
    row = facts.row
    if row.split != "test":
        raise UserError(f"the card's score is of the {row.split} part of the training data; --data-dir cannot check it")
    scores = evaluate(load_model(f"{DIR_PREFIX}{folder}"), data_dir, exif=facts.recipe.seattn.exif)
    claimed, correct = round(row.top1 * row.n), round(scores.top1 * scores.n)
    if scores.n != row.n:
        raise UserError(f"{data_dir} has {scores.n:,} test images, the card {row.n:,}; give the whole test split")
    summary = f"{correct:,} of {scores.n:,} test images are correct, {scores.top1:.2%}; the card claims {claimed:,}"
    if not row.top1_low <= scores.top1 <= row.top1_high:
        raise UserError(
            f"{summary}; this is outside the interval of {row.top1_low:.2%} to {row.top1_high:.2%}: are these the "
            f"images of {row.dataset}?"
        )
    return f"{summary}: a difference of {abs(correct - claimed)} images, inside the interval"
