"""Model cards and result tables, rendered from measured rows and recipes: nothing in them is typed by hand."""

from collections.abc import Sequence

import timm
from huggingface_hub import EvalResult, ModelCardData

from seattn._card_texts import DATASETS, training_text
from seattn.models._pretrained import HUB_ORG
from seattn.recipe import Recipe
from seattn.rows import AccuracyRow

_ATTENTION = {
    "se_": "squeeze-and-excitation ([Hu et al. 2018](https://arxiv.org/abs/1709.01507))",
    "eca_": "efficient channel attention ([Wang et al. 2020](https://arxiv.org/abs/1910.03151))",
    "cbam_": "convolutional block attention ([Woo et al. 2018](https://arxiv.org/abs/1807.06521))",
}


def render_card(row: AccuracyRow, recipe: Recipe) -> str:
    """The Hub card of the weights that `row` measured and `recipe` made, Markdown with YAML front matter."""
    cfg = timm.get_pretrained_cfg(row.name)
    assert cfg is not None
    assert cfg.label_names is not None
    data = DATASETS[row.dataset]
    front = ModelCardData(
        license="apache-2.0",
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["timm", "seattn", *(["squeeze-and-excitation"] if row.name.startswith("se_") else [])],
        datasets=None if data.hub is None else [data.hub],
        metrics=["accuracy"],
        model_name=row.name,
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type=data.hub or row.name.rpartition(".")[2],
                dataset_name=row.dataset,
                dataset_split=row.split,
                metric_type="accuracy",
                metric_name="top-1",
                metric_value=row.top1,
            )
        ],
    )
    kind = next((text for prefix, text in _ATTENTION.items() if row.name.startswith(prefix)), "no attention")
    where = row.conditions
    size = " × ".join(str(side) for side in cfg.input_size[1:])
    return f"""---
{front.to_yaml()}
---

# {row.name}

A ResNet for {size} images with {kind}, {row.params:,} parameters, trained on {row.dataset}: {data.what}.

## Use

```python
import seattn  # registers the models with timm
import timm

# "hf-hub:{HUB_ORG}/{row.name}" names the weights on the Hub
model = timm.create_model("{row.name}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
probabilities = model(transform(image).unsqueeze(0)).softmax(1)  # (1, {cfg.num_classes})
```

## Result

| split | n | top-1 | 95 % interval | top-5 | loss | calibration error |
| --- | --- | --- | --- | --- | --- | --- |
| {row.dataset} {row.split} | {row.n:,} | {_percent(row.top1)} | {_interval(row)} | {_percent(row.top5)} | \
{row.loss:.3f} | {_percent(row.ece)} |

One run, seed {row.seed}; the {row.split} split was read once, after training. Nothing was chosen on it: \
{row.held_out_images:,} of the train split's {row.train_images + row.held_out_images:,} images were held out for that, \
and on them the net has {_percent(row.held_out_top1)}. Interval: Wilson. Calibration error: top label, 15 bins. \
{_scored(row)}

## Preprocessing

{size} RGB, no crop; pixel values in 0..1, mean {_numbers(cfg.mean)}, standard deviation {_numbers(cfg.std)}. \
Classes in this order: {", ".join(cfg.label_names)}.

## Training

`zoo_configs/{row.recipe}.yaml`: {training_text(recipe, row)}. {_duration(row.train_seconds)} of wall time in training \
steps, whatever else the machine did, on {where.hardware}, {_threads(row)}, torch {where.torch}, timm {where.timm}, \
seattn {where.seattn} at commit \
{where.commit}, {where.date}.

```
seattn train zoo_configs/{row.recipe}.yaml --data-dir DIR
```

## Limits

Trained on {size} photographs of {cfg.num_classes} classes alone: anything else is forced into one of them, with a \
confidence that means nothing. {data.limits}
"""


def render_table(rows: Sequence[AccuracyRow]) -> str:
    """A Markdown table, a line a row, for the README."""
    lines = [
        "| weights | parameters | test images | top-1 % (95 % interval) | seed | trained on |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| `{row.name}` | {row.params:,} | {row.n:,} | {100 * row.top1:.2f} ({_interval(row)}) | {row.seed} | "
        f"{row.epochs} epochs, {_duration(row.train_seconds)}, {row.conditions.hardware}, {_threads(row)} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _threads(row: AccuracyRow) -> str:
    return f"{row.conditions.threads} thread{'s' if row.conditions.threads > 1 else ''}"


def _scored(row: AccuracyRow) -> str:
    if row.weights_dtype == "float16":
        return "The weights ship in half precision and were scored as they ship, computing in fp32."
    return "Evaluated in fp32."


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def _interval(row: AccuracyRow) -> str:
    return f"{100 * row.top1_low:.2f} to {100 * row.top1_high:.2f}"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
