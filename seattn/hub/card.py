"""Model cards and result tables, rendered from measured rows and recipes: nothing in them is typed by hand."""

import math
from collections.abc import Sequence
from typing import Any

import timm
from huggingface_hub import EvalResult, ModelCardData
from timm.models import PretrainedCfg

from seattn._card_sections import (
    calibration_section,
    classes_section,
    folded,
    interval,
    result_section,
    runs_of_recipe,
    spread,
)
from seattn._card_texts import DatasetText, citation, dataset_text, family_text, training_text
from seattn.hub.facts import Facts
from seattn.models._pretrained import DEFAULT_ORG


def picture_name(name: str) -> str:
    """The file of the picture that the card of the weights `name` shows, beside it."""
    return f"{name}.confusion.svg"


def render_card(facts: Facts, cfg: PretrainedCfg, org: str | None = None) -> str:
    """The Hub card of weights, Markdown with YAML front matter; `cfg` is that of the net with those weights.

    `org` is whose repository it is for; without one the project's, and of a user's weights not known yet.
    """
    data = dataset_text(facts.row.dataset)
    parts = [
        f"---\n{_front(facts, cfg, data).to_yaml()}\n---\n\n# {facts.name}\n",
        _what(facts, cfg, data),
        _use(facts, cfg, org),
        result_section(facts),
    ]
    if facts.classes is not None:
        parts += [
            classes_section(facts.classes, picture_name(facts.name)),
            calibration_section(facts.classes, facts.row),
        ]
    parts += [_preprocessing(cfg), _training(facts), _limits(facts, cfg, data), citation(facts, data)]
    return "\n".join(parts)


def render_table(weights: Sequence[Facts]) -> str:
    """A Markdown table, a line for each, for the README."""
    lines = [
        "| weights | parameters | test images | top-1 % (95 % interval) | seed | trained on |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for facts in weights:
        row, runs = facts.row, runs_of_recipe(facts)
        where = row.conditions.machine
        several = f"; {len(runs)} seeds {spread(runs)}" if len(runs) > 1 else ""
        lines.append(
            f"| `{row.name}` | {row.params:,} | {row.n:,} | {100 * row.top1:.2f} ({interval(row)}){several} | "
            f"{row.seed} | {row.epochs} epochs, {_duration(row.train_seconds)}, {where} |"
        )
    return "\n".join(lines) + "\n"


def _front(facts: Facts, cfg: PretrainedCfg, data: DatasetText) -> ModelCardData:
    row = facts.row
    se = (cfg.architecture or "").startswith("se_")
    where: dict[str, Any] = {
        "task_type": "image-classification",
        "dataset_type": data.hub or row.dataset.lower() or "imagefolder",
        "dataset_name": row.dataset or "a folder of images",
        "dataset_split": row.split,
        "metric_type": "accuracy",
    }
    wilson = {"confidence": 0.95, "low": row.top1_low, "high": row.top1_high, "method": "Wilson", "n": row.n}
    return ModelCardData(
        license="apache-2.0" if facts.of_project else None,
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["timm", "seattn", *(["squeeze-and-excitation"] if se else [])],
        base_model=_base_model(facts),
        datasets=None if data.hub is None else [data.hub],
        metrics=["accuracy"],
        model_name=facts.name,
        eval_results=[
            EvalResult(**where, metric_name="top-1", metric_value=row.top1, metric_args=wilson),
            EvalResult(**where, metric_name="top-5", metric_value=row.top5),
        ],
    )


def _base_model(facts: Facts) -> str | None:
    """The repository whose weights the training started from."""
    if not facts.recipe.pretrained:
        return None
    cfg = timm.get_pretrained_cfg(facts.recipe.model)
    if cfg is None or not cfg.hf_hub_id:
        return None
    own_name = f"{cfg.architecture}.{cfg.tag}" if cfg.tag else cfg.architecture
    return f"{cfg.hf_hub_id}{own_name}" if cfg.hf_hub_id == "timm/" else cfg.hf_hub_id


def _what(facts: Facts, cfg: PretrainedCfg, data: DatasetText) -> str:
    row, base = facts.row, _base_model(facts)
    start = f", from the weights [{base}](https://huggingface.co/{base})" if base else ""
    on = f"{row.dataset}: {data.what}" if data.what else row.dataset or "a folder of images"
    own = "" if facts.of_project else "A user's own training with seattn. "
    return (
        f"{own}{family_text(cfg.architecture or '')} for {_size(cfg)} images, {row.params:,} parameters, "
        f"{cfg.num_classes} classes, trained on {on}{start}.\n"
    )


def _use(facts: Facts, cfg: PretrainedCfg, org: str | None) -> str:
    own = timm.model_entrypoint(cfg.architecture or "").__module__.startswith("seattn.")
    head = "import seattn  # registers the nets with timm\n" if own else ""
    place = f"hf-hub:{org or (DEFAULT_ORG if facts.of_project else 'ORG')}/{facts.name}"
    if facts.of_project:
        note = f'`timm.create_model("{facts.name}", pretrained=True)` is the same, from the package if it is there. '
    else:
        note = "" if org else "`ORG` is whose repository this is; a folder is `local-dir:FOLDER`. "
    return f"""## Use

```python
{head}import timm
model = timm.create_model("{place}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
probabilities = model(transform(image).unsqueeze(0)).softmax(1)  # (1, {cfg.num_classes}), of a PIL image
```

{note}`seattn hub verify` holds this folder to what it says.
"""


def _preprocessing(cfg: PretrainedCfg) -> str:
    names = ", ".join(cfg.label_names or ())
    order = f" Classes in this order: {names}." if len(cfg.label_names or ()) <= 20 else ""
    crop_pct = cfg.crop_pct or 1.0
    side = min(cfg.input_size[1:])
    how = (
        f"the shorter side is resized ({cfg.interpolation}) to {math.floor(side / crop_pct)} and the middle cut out"
        if cfg.crop_mode == "center"
        else f"resized ({cfg.interpolation}) and cut by timm's crop mode {cfg.crop_mode}"
    )
    return (
        f"## Preprocessing\n\n{_size(cfg)} RGB: {how}; pixel values in 0..1, mean {_numbers(cfg.mean)}, standard "
        f"deviation {_numbers(cfg.std)}. `config.json` carries it.{order}\n"
        + ("" if order else "\n" + folded("Classes, in the order of the outputs", names))
    )


def _training(facts: Facts) -> str:
    row, where = facts.row, facts.row.conditions
    zoo = f"`zoo_configs/{row.recipe}.yaml` of seattn, in `recipe.yaml` here with every default written out"
    zoo = zoo if facts.of_project else "`recipe.yaml` here"
    commit = f" at commit {where.commit}" if where.commit else ""
    return f"""## Training

{zoo}: {training_text(facts.recipe, row)}. {_duration(row.train_seconds)} of wall time in training steps, whatever \
else the machine did, on {where.machine}, torch {where.torch}, timm {where.timm}, \
seattn {where.seattn}{commit}, {where.date}. To repeat it, with the images as `DIR/train/CLASS/IMAGE` and \
`DIR/test/CLASS/IMAGE`:

```
seattn train recipe.yaml --data-dir DIR
```
"""


def _limits(facts: Facts, cfg: PretrainedCfg, data: DatasetText) -> str:
    licence = (
        f"## Licence\n\nWeights and code: Apache-2.0. {data.licence}\n"
        if facts.of_project
        else "## Licence\n\nNot stated by whoever trained it; the weights it started from and the images may bind it.\n"
    )
    return (
        f"## Limits\n\nTrained on {_size(cfg)} images of {cfg.num_classes} classes alone: anything else is forced into "
        f"one of them, with a confidence that means nothing.{' ' + data.limits if data.limits else ''}\n\n{licence}"
    )


def _size(cfg: PretrainedCfg) -> str:
    return " × ".join(str(side) for side in cfg.input_size[1:])


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
