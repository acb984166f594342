"""Model cards and result tables, rendered from measured rows and recipes: nothing in them is typed by hand.

Shapes: K classes.
"""

import math
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

import timm
from huggingface_hub import EvalResult, ModelCardData
from timm.models import PretrainedCfg

from seattn.core.recipe import Recipe
from seattn.core.rows import AccuracyRow
from seattn.evaluation.scoring import ClassScore, wilson_interval, worst_pairs
from seattn.hub.facts import ClassResults, Facts
from seattn.layers import attn_paper
from seattn.models._datasets import About, about
from seattn.models._family import split_attn
from seattn.models._pretrained import DEFAULT_ORG

_ALL = 20  # classes that a table shows without folding
_HARDEST = 15
BINS = 15  # of `seattn.evaluation.scoring.calibration_bins`


def result_section(facts: Facts) -> str:
    """The scores of the weights and what they hold under; of all runs of the recipe, where there are several."""
    row = facts.row
    text = f"""## Result

| split | n | top-1 | 95 % interval | top-5 | loss | calibration error |
| --- | --- | --- | --- | --- | --- | --- |
| {f"{row.dataset} {row.split}".strip()} | {row.n:,} | {percent(row.top1)} | {interval(row)} | {percent(row.top5)} | \
{row.loss:.3f} | {percent(row.ece)} |

{_reading(facts)} Interval: Wilson. Calibration error: top label, 15 bins. {_scored(row)}
"""
    others = runs_of_recipe(facts)
    return text if len(others) < 2 else f"{text}\n{_seeds(row, others)}\n"


def runs_of_recipe(facts: Facts) -> list[AccuracyRow]:
    """A row a seed, the newest, of the runs that differ from that of the weights in the seed alone."""
    rows = {row.seed: row for row in facts.rows if row.recipe == facts.row.recipe}
    return [rows[seed] for seed in sorted(rows)]


def spread(rows: Sequence[AccuracyRow]) -> str:
    """Mean and standard deviation of top-1 over runs."""
    values = [100 * row.top1 for row in rows]
    return f"{mean(values):.2f} ± {stdev(values):.2f}"


def classes_section(classes: ClassResults, picture: str) -> str:
    """Each class's scores, the hardest first, the picture of confusions, and the most frequent ones."""
    scores = classes.per_class()
    if len(scores) <= _ALL:
        tables = f"Hardest first:\n\n{_table(scores)}"
    else:
        tables = f"The {_HARDEST} hardest of {len(scores)}:\n\n{_table(scores[:_HARDEST])}\n" + folded(
            f"The other {len(scores) - _HARDEST}", _table(scores[_HARDEST:])
        )
    numbered = " Both are numbered in the order of the outputs, from 0." if len(classes.class_names) > _ALL else ""
    pairs = [pair for pair in worst_pairs(classes.confusion, classes.class_names, 5) if pair[2] > 1]
    said = "; ".join(f"{true} taken for {predicted}, {count} ×" for true, predicted, count in pairs)
    return f"""## Classes

{tables}
![Confusion matrix: rows are true classes, columns predicted ones]({picture})

Rows are true classes, columns predicted ones.{numbered} Most frequent mistakes: {said or "none came twice"}.
"""


def folded(summary: str, text: str) -> str:
    """`text` behind a line that opens it."""
    return f"<details>\n<summary>{summary}</summary>\n\n{text.rstrip()}\n\n</details>\n"


def calibration_section(classes: ClassResults, row: AccuracyRow) -> str:
    """Whether the net is as right as it is sure, as a sentence and a table of bins."""
    n = classes.n
    sure = sum(count * confidence for count, confidence, _ in classes.bins) / n
    right = classes.correct / n
    gap = 100 * (sure - right)
    verdict = (
        "as sure as it is right"
        if abs(gap) < 0.5
        else "too sure of itself"
        if gap > 0
        else "less sure than it is right"
    )
    head = "| confidence | images | mean confidence | accuracy |\n| --- | --- | --- | --- |\n"
    table = head + "".join(
        f"| {100 * i / BINS:.0f} to {100 * (i + 1) / BINS:.0f} % | {count:,} | {percent(confidence)} | "
        f"{percent(accuracy)} |\n"
        for i, (count, confidence, accuracy) in enumerate(classes.bins)
        if count
    )
    return f"""## Calibration

The net is {verdict}: its mean confidence is {percent(sure)}, its accuracy {percent(right)}; expected calibration \
error {percent(row.ece)}.

{folded("By confidence", table)}"""


def percent(fraction: float) -> str:
    """In per cent with two places."""
    return f"{100 * fraction:.2f} %"


def interval(row: AccuracyRow) -> str:
    """The 95 % interval of top-1 in per cent."""
    return f"{100 * row.top1_low:.2f} to {100 * row.top1_high:.2f}"


def _table(scores: Sequence[ClassScore]) -> str:
    lines = "".join(
        f"| {_cell(score.name)} | {percent(score.recall)} | {_recall_interval(score)} | {percent(score.precision)} | "
        f"{percent(score.f1)} | {score.support:,} |\n"
        for score in scores
    )
    head = "| class | recall | 95 % interval | precision | F1 | images |\n| --- | --- | --- | --- | --- | --- |\n"
    return head + lines


def _cell(name: str) -> str:
    return name.replace("|", "\\|")


def _recall_interval(score: ClassScore) -> str:
    low, high = wilson_interval(round(score.recall * score.support), score.support)
    return f"{100 * low:.0f} to {100 * high:.0f}"


def _reading(facts: Facts) -> str:
    row = facts.row
    total = row.train_images + row.held_out_images
    if row.split != "test":
        return (
            f"One run, seed {row.seed}, scored on the {row.held_out_images:,} images of {total:,} that were held out "
            "to choose by: the score is a little too good. No test split was read."
        )
    # A row without a recipe is of one that has changed since; a user's own run has no other rows.
    before = [other for other in facts.rows if row.recipe and not other.recipe and other.split == row.split]
    said = [
        f"An earlier form of the recipe, of {other.epochs} epochs, had scored {percent(other.top1)} there, and it was "
        "changed in that knowledge."
        for other in before
    ]
    chosen = " ".join([*said, "Nothing else was chosen on it: " if said else "Nothing was chosen on it: "])
    if row.held_out_top1 is None:
        return (
            f"One run, seed {row.seed}, trained on all {total:,} images for training; the test split was read after "
            f"training. {chosen}the recipe was chosen in shorter runs that held out a part of the train split."
        )
    return (
        f"One run, seed {row.seed}; the test split was read after training. {chosen}"
        f"{row.held_out_images:,} of {total:,} images for training were held out for that, and on them the net has "
        f"{percent(row.held_out_top1)}."
    )


def _scored(row: AccuracyRow) -> str:
    if row.weights_dtype == "float16":
        return "The weights ship in half precision and were scored as they ship, computing in fp32."
    return "Evaluated in fp32."


def _seeds(row: AccuracyRow, rows: Sequence[AccuracyRow]) -> str:
    top1 = ", ".join(f"{percent(other.top1)} (seed {other.seed})" for other in rows)
    return (
        f"{len(rows)} runs that differ in the seed alone have {spread(rows)} % (mean and standard deviation, n = "
        f"{len(rows)}): {top1}. Of them seed {row.seed} ships, the best on the held-out images."
    )


_SEATTN = """@software{seattn,
  title = {seattn: squeeze-and-excitation, CBAM and ECA attention for timm},
  author = {{The seattn maintainers}},
  license = {Apache-2.0}
}"""
# By a part of the architecture's name; the first that it has.
_FAMILIES = {
    "preact_resnet": "A pre-activation ResNet",
    "resnext": "A ResNeXt",
    "wrn": "A wide ResNet",
    "mobilenetv2": "A MobileNetV2",
    "resnet": "A ResNet",
}


def family_text(architecture: str) -> str:
    """What kind of net it is and with which attention; for a net of timm's, its name."""
    attention, _ = split_attn(architecture)
    family = next((text for part, text in _FAMILIES.items() if part in architecture), None)
    known = f"{family} (`{architecture}`)" if family else f"A net `{architecture}`"
    if attention is None:
        return known
    paper = attn_paper(attention)
    return f"{known} with " + (f"{paper.title} ([{paper.authors}]({paper.url}))" if paper else f"{attention} attention")


def citation(facts: Facts, data: About) -> str:
    """What to cite, in BibTeX."""
    attention, _ = split_attn(facts.recipe.model)
    paper = attn_paper(attention) if attention else None
    entries = "\n\n".join(entry for entry in (_SEATTN, paper.bibtex if paper else "", data.cite) if entry)
    return f"## Citation\n\n```bibtex\n{entries}\n```\n"


def _restarts(recipe: Recipe) -> str:
    again = recipe.lr_cycle_limit - 1
    if not again:
        return ""
    times = "once more" if again == 1 else f"{again} times more"
    return (
        f", then {times} from {recipe.lr_cycle_decay:g} times the rate over {recipe.lr_cycle_mul:g} times the length "
        "of the cycle before"
    )


def training_text(recipe: Recipe, row: AccuracyRow) -> str:
    """How `recipe` trained the weights of `row`, in one clause."""
    ours = recipe.seattn
    length = recipe.warmup_epochs if recipe.warmup_prefix else 0
    sizes = ", ".join(f"{epochs} at {side} pixels" for side, epochs in ours.resize)
    rest = row.epochs - sum(epochs for _, epochs in ours.resize)
    parts = [
        f"{row.epochs} epochs of {row.train_images:,} images"
        + (f" ({sizes}{f', {rest} at full size' if rest else ''})" if sizes else ""),
        f"batch {recipe.batch_size}",
        f"{recipe.opt} to a learning rate of {recipe.lr:g} over {recipe.warmup_epochs} epochs and down along "
        f"{'a straight line' if recipe.sched == 'poly' and recipe.decay_rate == 1 else recipe.sched} over "
        f"{recipe.epochs if length else recipe.epochs - recipe.warmup_epochs}{_restarts(recipe)}",
        f"weight decay {recipe.weight_decay:g}",
        f"random crop from a border of {ours.crop_padding} pixels"
        if ours.crop_padding is not None
        else f"random crops of {recipe.scale[0]:.0%} to {recipe.scale[1]:.0%} of the image",
    ]
    optional = {
        "mirroring": recipe.hflip,
        f"colours changed by up to {recipe.color_jitter or 0:.0%}": recipe.color_jitter and not ours.policy,
        f"the policy {ours.policy}": ours.policy,
        f"cut-outs of {ours.cutout} pixels": ours.cutout,
        "mixup": recipe.mixup,
        "cutmix": recipe.cutmix,
        f"dropout {recipe.drop:g}": recipe.drop,
        f"label smoothing {recipe.smoothing:g}": recipe.smoothing,
        f"weights averaged with decay {recipe.model_ema_decay:g}": recipe.model_ema,
    }
    return ", ".join([*parts, *(text for text, on in optional.items() if on), row.dtype, row.memory_format])


def picture_name(name: str) -> str:
    """The file of the picture that the card of the weights `name` shows, beside it."""
    return f"{name}.confusion.svg"


def render_card(facts: Facts, cfg: PretrainedCfg, org: str | None = None) -> str:
    """The Hub card of weights, Markdown with YAML front matter; `cfg` is that of the net with those weights.

    `org` is whose repository it is for; without one the project's, and of a user's weights not known yet.
    """
    data = about(facts.row.dataset)
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


def _front(facts: Facts, cfg: PretrainedCfg, data: About) -> ModelCardData:
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


def _what(facts: Facts, cfg: PretrainedCfg, data: About) -> str:
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


def _limits(facts: Facts, cfg: PretrainedCfg, data: About) -> str:
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
