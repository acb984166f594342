"""Explanations as one HTML page: an image beside its map, gates by depth; the figures also as PNGs beside it.

Shapes: H x W pixels.
"""

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from seattn.core.files import require_writable, write_text
from seattn.evaluation.explanation import Explanation
from seattn.evaluation.figures import Plot, Theme
from seattn.evaluation.gates import GateDifference, LayerGates, gate_differences
from seattn.reports.images import png_uri, strips_html
from seattn.reports.page import Pages, bar, definitions, folded, table

Pixels = npt.NDArray[np.uint8]
_SIDE = 256  # pixels of a picture on the page, at least
_STRENGTH = 0.75  # how far the hottest place covers the image
BANDS = 3  # images whose spread is drawn; more bands hide each other
_NAMED = 24  # layers whose names fit under a figure


def enlarged(picture: Pixels) -> Pixels:
    """(H, W, 3) by a whole factor, so that its pixels stay squares."""
    factor = max(1, _SIDE // max(picture.shape[:2]))
    return np.ascontiguousarray(picture.repeat(factor, 0).repeat(factor, 1))


def overlay(picture: Pixels, heat: npt.NDArray[np.float32]) -> Pixels:
    """The picture (H, W, 3) in grey, and over it the heat (H, W) in colour, the more opaque the hotter."""
    large = enlarged(picture)
    size = (large.shape[1], large.shape[0])
    smooth = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)
    grey = np.asarray(Image.fromarray(large).convert("L"), dtype=np.float32)[..., None] / 255
    color = mpl.colormaps["inferno"](0.25 + 0.75 * smooth)[..., :3]
    weight = _STRENGTH * smooth[..., None]
    mixed: Pixels = ((grey * (1 - weight) + color * weight) * 255).round().astype(np.uint8)
    return mixed


def image_plot(
    picture: Pixels, heat: npt.NDArray[np.float32], labels: Sequence[str], shares: Sequence[float], *, head: str
) -> Plot:
    """The image, the map over it, and the probabilities of the top classes."""

    def draw(figure: Figure, theme: Theme) -> None:
        panels: Any = figure.subplots(1, 3, width_ratios=(1, 1, 1.1))
        for axes, pixels, name in zip(
            panels, (enlarged(picture), overlay(picture, heat)), ("image", head), strict=False
        ):
            axes.imshow(pixels)
            axes.set_title(name, fontsize=9)
            axes.axis("off")
        bars = panels[2].barh(range(len(labels)), shares, color=theme.right)
        panels[2].bar_label(bars, [f"{share:.1%}" for share in shares], padding=3, fontsize=7)
        short = [name if len(name) <= 20 else name[:19] + "…" for name in labels]
        panels[2].set_yticks(range(len(labels)), short)
        panels[2].set(xlim=(0, 1.25), ylim=(len(labels) - 0.4, -0.6))
        panels[2].set_xticks([0, 0.5, 1])
        panels[2].xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        panels[2].spines[["top", "right"]].set_visible(False)

    return Plot(draw, 8.4, 2.8, head, "")


def gates_plot(images: Sequence[tuple[str, Sequence[LayerGates]]]) -> Plot:
    """Mean of the gates by depth with a band of one standard deviation, a line an image; alone also the extremes."""
    depth = np.arange(len(images[0][1]))
    names = [layer.name for layer in images[0][1]]

    def draw(figure: Figure, theme: Theme) -> None:
        axes: Any = figure.subplots()
        if len(images) == 1:
            parts = axes.violinplot([layer.gates for layer in images[0][1]], depth, showextrema=True, widths=0.8)
            for body in parts["bodies"]:
                body.set(facecolor=theme.right, alpha=0.3)
            for key in ("cbars", "cmins", "cmaxes"):
                parts[key].set(color=theme.right, linewidth=0.8)
        for index, (label, layers) in enumerate(images):
            mean = np.array([layer.gates.mean() for layer in layers])
            spread = np.array([layer.gates.std() for layer in layers])
            color = theme.series(index)
            axes.plot(depth, mean, "o-", color=color, markersize=4, linewidth=1.5, label=label)
            if 1 < len(images) <= BANDS:
                axes.fill_between(depth, mean - spread, mean + spread, color=color, alpha=0.15, linewidth=0)
        _depth_axis(axes, names, theme)
        axes.set_ylabel("gate")
        if len(images) > 1:
            axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)

    what = "; ".join(
        f"{label}: mean {np.mean([one.gates.mean() for one in layers]):.2f}, from {layers[0].gates.mean():.2f} in the "
        f"first layer to {layers[-1].gates.mean():.2f} in the last"
        for label, layers in images
    )
    return Plot(draw, 8.6, 3.6 + 0.1 * len(images), f"Channel gates by depth. {what}.", "Channel gates by depth")


def difference_plot(rows: Sequence[GateDifference]) -> Plot:
    """How far the gates of two images are apart by depth, where the classes differ and where they are the same."""

    def draw(figure: Figure, theme: Theme) -> None:
        axes: Any = figure.subplots()
        for field, color, style, label in (
            ("other_class", theme.wrong, "o-", "images of different classes"),
            ("same_class", theme.right, "s--", "images of one class"),
        ):
            values = [getattr(row, field) for row in rows]
            if None not in values:
                axes.plot(range(len(rows)), values, style, color=color, markersize=4, linewidth=1.5, label=label)
        _depth_axis(axes, [row.layer for row in rows], theme)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("mean |difference| of two images")
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)

    both = [("different classes", "other_class"), ("one class", "same_class")]
    said = "; ".join(
        f"{name}: {getattr(rows[0], field):.3f} in the first layer, {getattr(rows[-1], field):.3f} in the last"
        for name, field in both
        if getattr(rows[0], field) is not None
    )
    alt = f"Difference of the gates of two images by depth. {said}."
    return Plot(draw, 8.6, 3.4, alt, "How far the gates of two images are apart, by depth")


def map_pixels(gate: npt.NDArray[np.float32]) -> Pixels:
    """A spatial gate (H, W), 0 to 1 or 2, in colour."""
    top = 2.0 if gate.max() > 1 else 1.0
    colors = mpl.colormaps["viridis"](np.clip(gate / top, 0, 1), bytes=True)[..., :3]
    return np.ascontiguousarray(colors)


def _depth_axis(axes: Any, names: Sequence[str], theme: Theme) -> None:
    if len(names) <= _NAMED:
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
    else:
        axes.set_xlabel(f"attention layer, {names[0]} to {names[-1]}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=theme.text, alpha=0.12, linewidth=0.6)


_OPEN = 2  # images whose strips are shown at once
_CSS = """<style>
.trio { display: grid; grid-template-columns: 16rem 16rem minmax(13rem, 1fr); gap: 1rem 1.5rem; align-items: start; }
.trio figure { margin: 0; } .trio figure img { display: block; width: 100%; height: auto; }
.maps { display: grid; grid-template-columns: repeat(auto-fill, minmax(6rem, 1fr)); gap: .75rem; }
.maps figure { margin: 0; } .maps img { display: block; width: 100%; image-rendering: pixelated; }
.maps figcaption { font-size: .75rem; overflow-wrap: anywhere; }
@media (max-width: 50rem) { .trio { grid-template-columns: 1fr 1fr; } .trio > div { grid-column: 1 / -1; } }
</style>"""


def write_explanations(out: Path, explanations: Sequence[Explanation], *, model_name: str) -> Path:
    """Write `out`/explain.html and its figures.

    Raises:
        UserError: if the folder cannot be written to.
    """
    require_writable(out)
    pages, first = Pages(), explanations[0]
    for number, one in enumerate(explanations, 1):
        _add_image(pages, one, number)
    _add_gates(pages, explanations)
    h, w = first.map_size
    height, width = first.heat.shape
    facts = {
        "model": model_name,
        "map": f"{first.method} on {first.layer}, {h} x {w}, brought smoothly to the input's {height} x {width}",
        "gates": f"{len(first.gates)} attention layers" if first.gates else "none: no attention layer that is known",
    }
    head = f'{_CSS}<dl class="facts">{definitions(facts, wrap=False)}</dl>'
    for name, plot in pages.plots.items():
        plot.write_png(out / f"{name}.png")
    write_text(out / "explain.html", pages.html(f"What {model_name} sees", head))
    return out / "explain.html"


def _add_image(pages: Pages, one: Explanation, number: int) -> None:
    name = Path(one.prediction.image).name
    head = f"{one.method} for {one.target}"
    rows = [
        [escape(label), bar(share, f"{share:.1%}")]
        for label, share in zip(one.prediction.labels, one.prediction.probabilities, strict=True)
    ]
    alt = f"where {one.layer} speaks for {one.target}: {_peak(one)}"
    pages.add(
        name,
        '<div class="trio">'
        + _picture(enlarged(one.picture), f"{name} as the net sees it", "as the net sees it")
        + _picture(overlay(one.picture, one.heat), alt, f"{head}, {one.probability:.1%}; {_peak(one)}")
        + f"<div>{table(('class', 'probability'), rows)}</div></div>",
    )
    plot = image_plot(one.picture, one.heat, one.prediction.labels, one.prediction.probabilities, head=head)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).stem)[:60]
    pages.keep(f"image-{number}-{stem}", plot)
    if one.gates:
        strips = strips_html(one.gates)
        summary = "channel gates, a layer a row from the first to the last, a channel a column"
        parts = [f"<h3>Channel gates</h3>{strips}" if number <= _OPEN else folded(summary, strips)]
        if one.spatial:
            maps = "".join(
                _picture(
                    map_pixels(gate),
                    f"gate of {layer}",
                    f"{layer.removesuffix('.spatial')}: {gate.min():.2f} to {gate.max():.2f}",
                )
                for layer, gate in one.spatial
            )
            maps = f'<div class="maps">{maps}</div>'
            parts.append(f"<h3>Spatial gates</h3>{maps}" if number <= _OPEN else folded("spatial gates", maps))
        pages.add("", *parts)


def _picture(pixels: Pixels, alt: str, caption: str) -> str:
    return (
        f'<figure><img src="{png_uri(pixels)}" alt="{escape(alt)}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def _peak(one: Explanation) -> str:
    if one.peak is None:
        return "nothing in this layer speaks for the class"
    return f"hottest at row {one.peak[0]}, column {one.peak[1]} of {one.heat.shape[0]} x {one.heat.shape[1]}"


def _add_gates(pages: Pages, explanations: Sequence[Explanation]) -> None:
    if not explanations[0].gates:
        return pages.add("Channel gates", note="This model has no attention layer with channel gates.")
    shown = [(f"{Path(one.prediction.image).name}: {one.prediction.labels[0]}", one.gates) for one in explanations]
    figure = pages.figure("gates", gates_plot(shown), wide=True)
    text = "Mean of what a layer multiplies its channels by; "
    if len(shown) == 1:
        text += "the shape is their distribution."
    elif len(shown) <= BANDS:
        text += "the band is one standard deviation over channels."
    else:
        text += "a line an image."
    pages.add("Channel gates by depth", figure, note=text)
    rows = gate_differences([one.gates for one in explanations], [one.prediction.indices[0] for one in explanations])
    if rows:
        pages.add(
            "How far the gates of two images are apart",
            pages.figure("gate-differences", difference_plot(rows), wide=True),
            note=(
                "Small: the layer treats all images alike. Where images of different predicted classes are further "
                "apart than those of one class, it is specific to the class. Hu et al. find that late in a net; a few "
                "images are an example, not a proof."
            ),
        )
