"""Model cards and the README's table of weights, rendered from measured rows and recipes.

The text of a card is in `templates/card.md.j2`.
Shapes: K classes.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from statistics import mean, stdev
from typing import Any

import timm
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, StrictUndefined, Template
from timm.models import PretrainedCfg

from seattn.core.errors import counted
from seattn.core.recipe import Recipe
from seattn.core.rows import AccuracyRow
from seattn.evaluation.scoring import wilson_interval
from seattn.hub.facts import ClassResults, Facts
from seattn.layers import attn_paper
from seattn.models._datasets import about, superclasses
from seattn.models._family import split_attn
from seattn.models._hub import timm_repository
from seattn.models._pretrained import DEFAULT_ORG

# By a part of the architecture's name; the first part that the name contains counts.
_FAMILIES = {
    "preact_resnet": "A pre-activation ResNet",
    "resnext": "A ResNeXt",
    "wrn": "A wide ResNet",
    "mobilenetv2": "A MobileNetV2",
    "resnet": "A ResNet",
}

_POLICIES = {
    "cifar10": "AutoAugment for CIFAR-10",
    "imagenet": "AutoAugment for ImageNet",
    "randaugment": "RandAugment",
    "trivial": "TrivialAugment",
}


def render_card(facts: Facts, cfg: PretrainedCfg, org: str | None = None, temperature: float = 1.0) -> str:
    """The Hub card of weights: Markdown with YAML front matter.

    Args:
        facts: the rows, the recipe and the results of each class.
        cfg: the pretrained cfg of the model with these weights.
        org: owner of the repository. By default the project's organisation; for a user's weights "ORG".
        temperature: by which `seattn predict` divides the logits of these weights.
    """
    row, recipe, classes = facts.row, facts.recipe, facts.classes
    architecture = cfg.architecture or ""
    dataset = about(row.dataset)
    attention, _ = split_attn(architecture)
    paper = attn_paper(attention) if attention else None
    return _template().render(
        front_matter=_front_matter(facts, cfg, dataset.hub).to_yaml(),
        name=facts.name,
        of_project=facts.of_project,
        of_seattn=timm.model_entrypoint(architecture).__module__.startswith("seattn."),
        org=org or (DEFAULT_ORG if facts.of_project else "ORG"),
        cfg=cfg,
        size=" × ".join(str(side) for side in cfg.input_size[1:]),
        resized=math.floor(min(cfg.input_size[1:]) / (cfg.crop_pct or 1.0)),
        label_names=cfg.label_names or (),
        family=next((text for part, text in _FAMILIES.items() if part in architecture), None),
        attention=attention,
        paper=paper,
        dataset=dataset,
        base_model=_base_model(facts),
        row=row,
        where=row.conditions,
        all_images=row.train_images + row.held_out_images,
        own_validation=row.held_out_images > 0 and recipe.seattn.holdout == 0,
        earlier_rows=_earlier_rows(facts),
        below_floor=[other for other in _earlier_rows(facts) if _is_below_floor(other, facts)],
        runs=runs_of_recipe(facts),
        recipe=recipe,
        ours=recipe.seattn,
        second_cycle=recipe.scheduled_epochs - recipe.epochs - recipe.cooldown_epochs - _warm_up(recipe),
        full_size_epochs=row.epochs - sum(epochs for _, epochs in recipe.seattn.resize),
        classes=classes,
        scores=sorted(classes.per_class, key=lambda score: (score.recall, score.f1)) if classes else [],
        **_superclasses(classes),
        temperature=temperature,
        policy=_POLICIES.get(recipe.seattn.policy),
        mistakes=[pair for pair in classes.worst_pairs(5) if pair[2] > 1] if classes else [],  # made more than once
        confidence=sum(count * confidence for count, confidence, _ in classes.bins) / classes.n if classes else None,
        accuracy=classes.correct / classes.n if classes else None,
        picture=picture_name(facts.name),
    )


def render_table(weights: Sequence[Facts], published: Mapping[str, str]) -> str:
    """The README's Markdown table of weights, one line for each.

    Args:
        published: by the name of weights, the best accuracy that others publish, and where.
    """
    lines = [
        "| weights | parameters | test images | top-1 % (95 % interval) | published elsewhere | seed | trained on |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for facts in weights:
        row, runs = facts.row, runs_of_recipe(facts)
        seeds = f"; {len(runs)} seeds {_spread(runs)}" if len(runs) > 1 else ""
        cells = (
            f"`{row.name}`",
            f"{row.params:,}",
            f"{row.n:,}",
            f"{100 * row.top1:.2f} ({interval(row)}){seeds}",
            published.get(row.name, "–"),
            str(row.seed),
            f"{counted(row.epochs, 'epoch')}, {_duration(row.train_seconds)}, {row.conditions.machine}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def runs_of_recipe(facts: Facts) -> list[AccuracyRow]:
    """The newest row of each seed, from the runs that differ from the weights' own run only in the seed."""
    rows = {row.seed: row for row in facts.rows if row.recipe == facts.row.recipe}
    return [rows[seed] for seed in sorted(rows)]


def percent(fraction: float) -> str:
    """A fraction as per cent with two decimal places."""
    return f"{100 * fraction:.2f} %"


def interval(row: AccuracyRow) -> str:
    """The 95 % interval of top-1 in per cent."""
    return f"{100 * row.top1_low:.2f} to {100 * row.top1_high:.2f}"


def picture_name(name: str) -> str:
    """The file name of the picture on the card of the weights `name`; the file is beside the card."""
    return f"{name}.confusion.svg"


@cache
def _template() -> Template:
    # ModelCard.from_template would render a misspelt name as nothing, and its template cannot be indented.
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False
    )
    environment.filters |= {
        "one_line": lambda text: " ".join(text.split()) + "\n",
        "percent": percent,
        "whole_percent": "{:.0%}".format,
        "thousands": "{:,}".format,
        "numbers": lambda values: ", ".join(f"{value:g}" for value in values),
        "interval": interval,
        "spread": _spread,
        "duration": _duration,
    }
    template = files("seattn.hub") / "templates" / "card.md.j2"
    return environment.from_string(template.read_text(encoding="utf-8"))


def _front_matter(facts: Facts, cfg: PretrainedCfg, dataset: str | None) -> ModelCardData:
    row = facts.row
    is_se = (cfg.architecture or "").startswith("se_")
    split: dict[str, Any] = {
        "task_type": "image-classification",
        "dataset_type": dataset or row.dataset.lower() or "imagefolder",
        "dataset_name": row.dataset or "a folder of images",
        "dataset_split": row.split,
        "metric_type": "accuracy",
    }
    wilson = {"confidence": 0.95, "low": row.top1_low, "high": row.top1_high, "method": "Wilson", "n": row.n}
    return ModelCardData(
        license="apache-2.0" if facts.of_project else None,
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["timm", "seattn", *(["squeeze-and-excitation"] if is_se else [])],
        base_model=_base_model(facts),
        datasets=None if dataset is None else [dataset],
        metrics=["accuracy"],
        model_name=facts.name,
        eval_results=[
            EvalResult(**split, metric_name="top-1", metric_value=row.top1, metric_args=wilson),
            EvalResult(**split, metric_name="top-5", metric_value=row.top5),
        ],
    )


def _superclasses(classes: ClassResults | None) -> dict[str, Any]:
    """The template's variables on superclasses."""
    groups = None if classes is None else superclasses(classes.class_names)
    if classes is None or groups is None:
        return {"superclass_top1": None}
    right = round((classes.superclass_top1 or 0.0) * classes.n)
    low, high = wilson_interval(right, classes.n)
    return {
        "superclass_top1": classes.superclass_top1,
        "superclass_interval": f"{100 * low:.2f} to {100 * high:.2f}",
        "superclass_count": len(set(groups)),
    }


def _base_model(facts: Facts) -> str | None:
    """The repository of the weights that the training started from."""
    return timm_repository(facts.recipe.model) if facts.recipe.pretrained else None


def _earlier_rows(facts: Facts) -> list[AccuracyRow]:
    """The rows of other recipes on the same split that were known when this recipe was written.

    A row without a recipe is from before the last change of this one. Nets that differ only in their attention are
    trained by one recipe, which has one name after that of the net.
    """
    before = facts.rows[: facts.rows.index(facts.row)]
    others = [row for row in facts.rows if facts.of_project and _version(row) != _version(facts.row)]
    return [row for row in others if row.split == facts.row.split and (row in before or not row.recipe)]


def _warm_up(recipe: Recipe) -> int:
    """The epochs of warm-up before the first cycle."""
    return recipe.warmup_epochs if recipe.warmup_prefix else 0


def _is_below_floor(row: AccuracyRow, facts: Facts) -> bool:
    """Whether an earlier row is of a run for publication (`….zoo`) whose weights missed the floor.

    Such weights are not halved for the package; the row is of those in full precision.
    """
    worse = row.top1 < facts.row.top1 and row.epochs < facts.row.epochs
    return worse and row.name == facts.name and row.recipe.endswith(".zoo") and row.weights_dtype == "float32"


def _version(row: AccuracyRow) -> str:
    """The name of a row's recipe without that of the net: "cifar10.zoo"."""
    return row.recipe.partition(".")[2]


def _spread(rows: Sequence[AccuracyRow]) -> str:
    """Mean and standard deviation of top-1 over runs, in per cent."""
    values = [100 * row.top1 for row in rows]
    return f"{mean(values):.2f} ± {stdev(values):.2f}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
