"""Hold that a folder for the Hub is whole and says the truth: it is what was staged, and it does what it says.

Nothing in the folder is executed, and no size in it is believed before it is compared with the file's.
"""

from dataclasses import dataclass
from pathlib import Path

import yaml

from seattn.core.errors import UserError, first_line
from seattn.core.files import sha256
from seattn.evaluation.scoring import evaluate, wilson_interval
from seattn.hub.card import interval, percent
from seattn.hub.facts import Facts, staged_facts
from seattn.hub.golden import GOLDEN, TOLERANCE, check_golden
from seattn.hub.sums import check_sums
from seattn.models.checkpoints.folder import check_config, check_weights
from seattn.models.load import CONFIG, DIR_PREFIX, WEIGHTS, load_model

CARD = "README.md"
FILES = (CARD, CONFIG, WEIGHTS, "recipe.yaml", "results.json", GOLDEN)  # what each folder has, beside SHA256SUMS
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Verification:
    """What was held, in order: (check, what was found), both for people to read."""

    checks: tuple[tuple[str, str], ...]


def verify(folder: Path, *, data_dir: Path | None = None) -> Verification:
    """Check a folder that `seattn hub stage` wrote, or a download of one.

    Args:
        folder: with SHA256SUMS and the files it lists; files that begin with a dot are the Hub's and passed over.
        data_dir: an image folder; the weights are then scored on its test split, against what the card claims.

    Raises:
        UserError: on the first check that fails, naming the file, what is wrong and what to do.
    """
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}; `seattn hub stage NAME {folder}` makes one")
    count = check_sums(folder, FILES)
    checks = [("checksums", f"{count} files are those that SHA256SUMS lists")]
    net = check_config(folder / CONFIG)
    config = f"{net.num_classes} classes, each with a name"
    checks.append(("config.json", config))
    checks.append(("weights", check_weights(folder / WEIGHTS, net)))
    model = load_model(f"{DIR_PREFIX}{folder}")
    furthest = check_golden(folder / GOLDEN, model)
    checks.append(("golden outputs", f"within {furthest:.1g} of the largest value; {TOLERANCE:g} is allowed"))
    facts = staged_facts(folder)
    checks.append(("results.json", _check_results(folder / "results.json", facts)))
    checks.append(("card", _check_card(folder / CARD, facts)))
    if data_dir is not None:
        checks.append(("accuracy", _check_accuracy(folder, facts, data_dir)))
    return Verification(tuple(checks))


def _check_card(path: Path, facts: Facts) -> str:
    """The card says what the row says, in its front matter and below."""
    text = path.read_text(encoding="utf-8", errors="replace")
    _, front_text, body = [*text.split("---\n", 2), "", ""][:3]
    try:
        front = yaml.safe_load(front_text)
        (model,) = front["model-index"]
        claims = {metric["name"]: metric["value"] for metric in model["results"][0]["metrics"]}
        top1 = float(claims["top-1"])
    except (yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: the front matter names no top-1 under model-index: {first_line(error)}") from error
    if (model.get("name"), top1) != (facts.name, facts.row.top1):
        raise UserError(
            f"{path} claims {top1:.2%} for {str(model.get('name'))[:60]!r}, results.json {facts.row.top1:.2%} for "
            f"{facts.name}; one of them is not of these weights"
        )
    if f"| {percent(top1)} | {interval(facts.row)} |" not in body:
        raise UserError(f"{path}: the table under the front matter does not say {top1:.2%} as the front matter does")
    return f"claims {top1:.2%} top-1, as results.json does"


def _check_results(path: Path, facts: Facts) -> str:
    """The numbers of results.json agree with each other, and are of the weights beside it."""
    row, classes = facts.row, facts.classes
    if row.n < 1 or not 0 <= row.top1 <= 1:
        raise UserError(f"{path}: top1 {row.top1:g} of {row.n} images; it must be from 0 to 1, of one or more")
    low, high = wilson_interval(round(row.top1 * row.n), row.n)
    if max(abs(low - row.top1_low), abs(high - row.top1_high)) > _ROUNDING:
        raise UserError(
            f"{path}: the 95 % interval of {row.top1:.2%} of {row.n:,} images is {low:.2%} to {high:.2%}, not "
            f"{row.top1_low:.2%} to {row.top1_high:.2%}"
        )
    if classes is None:
        return f"{row.top1:.2%} of {row.n:,} images and its interval agree; nothing of each class"
    if classes.sha256 != sha256(path.parent / WEIGHTS):
        raise UserError(f"{path}: the results of each class are of another {WEIGHTS}; stage the folder again")
    if (classes.n, classes.correct) != (row.n, round(row.top1 * row.n)):
        raise UserError(f"{path}: the classes have {classes.correct:,} of {classes.n:,} right, the row {row.top1:.2%}")
    return f"{row.top1:.2%} of {row.n:,} images, its interval and {len(classes.class_names)} classes' confusions agree"


def _check_accuracy(folder: Path, facts: Facts, data_dir: Path) -> str:
    row = facts.row
    if row.split != "test":
        raise UserError(f"the card's claim is of the {row.split} part of the training data; --data-dir cannot check it")
    found = evaluate(load_model(f"{DIR_PREFIX}{folder}"), data_dir)
    claimed, right = round(row.top1 * row.n), round(found.top1 * found.n)
    if found.n != row.n:
        raise UserError(f"{data_dir} has {found.n:,} test images, the claim is of {row.n:,}; give the whole test split")
    said = f"{right:,} of {found.n:,} test images right, {found.top1:.2%}; the card claims {claimed:,}, {row.top1:.2%}"
    if not row.top1_low <= found.top1 <= row.top1_high:
        raise UserError(
            f"{said}, and an interval of {row.top1_low:.2%} to {row.top1_high:.2%}: this is outside of it; are these "
            f"the images of {row.dataset}?"
        )
    return f"{said}: {abs(right - claimed)} images apart, inside of the interval"
