"""The figures of explanations: an image beside its map, gates by depth.

Shapes: H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from seattn._report_gates import LayerGates
from seattn.evaluation.figures import Plot, Theme
from seattn.evaluation.gates import GateDifference

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
