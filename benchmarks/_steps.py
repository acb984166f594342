"""What a training step of a net with attention is made of: the nets timed beside it, as a table in Markdown."""

from collections.abc import Sequence

from benchmarks.speed.rows import OURS, SpeedRow, newest
from benchmarks.speed.tables import DTYPES, LAYOUTS

_COLUMNS = {
    "timm_eager": "timm's",
    "plain": "no attention, our tails",
    "plain_timm_eager": "no attention, timm's",
    "convolutions": "convolutions alone",
}


def render_steps(rows: Sequence[SpeedRow]) -> str:
    """A line for each net, dtype and layout whose plain net was timed beside it; empty where none was."""
    steps = [row for row in newest(rows) if row.mode.startswith("training_step") and not row.cuda_graph]
    groups = dict.fromkeys(row.group for row in steps if row.implementation == "plain")
    if not groups:
        return ""
    text = [
        f"| training step, {steps[-1].conditions.machine} | dtype | layout | {' | '.join(_COLUMNS.values())} |",
        "| --- | --- | --- |" + " --- |" * len(_COLUMNS),
    ]
    for group in groups:
        (ours,) = (row for row in steps if row.group == group and row.implementation == OURS)
        times = {row.implementation: f"{row.ratio:.2f}" for row in steps if row.group == group}
        images = ours.shape.split("x")[0]
        facts = (f"`{ours.case}`, {images} images", DTYPES[ours.dtype], LAYOUTS[ours.memory_format])
        text.append(f"| {' | '.join([*facts, *(times.get(name, '') for name in _COLUMNS)])} |")
    return "\n".join(text) + "\n"
