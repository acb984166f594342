"""The page on explanations: where a net looks in images, and the gates of its attention layers by depth.

Shapes: H x W pixels.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from seattn.evaluation.explanation import Explanation
from seattn.evaluation.figures import BANDS, depth_axis, enlarged, gates_plot, overlay
from seattn.evaluation.gates import GateDifference, LayerGates, gate_differences
from seattn.evaluation.style import RIGHT, WRONG, Plot, legend_above, shortened
from seattn.reports.images import gate_strips, heat_pixels
from seattn.reports.net_report import NO_GATES
from seattn.reports.page import Bar, Folded, Group, Headline, Page, Part, Picture, Row, Table, Text

_OPEN = 2  # images whose gates are shown at once; those of further images are folded away


def write_explanations(out: Path, explanations: Sequence[Explanation], *, model_name: str) -> Path:
    """Write `out`/explain.html and its figures, all or none.

    Raises:
        UserError: if the folder cannot be written to.
    """
    page, first = Page(), explanations[0]
    for number, explanation in enumerate(explanations, 1):
        _add_image(page, explanation, number)
    _add_gates(page, explanations)
    h, w = first.map_size
    height, width = first.heat.shape
    facts = {
        "model": model_name,
        "map": f"{first.method} on {first.layer}, {h} x {w}, resized smoothly to the input's {height} x {width}",
        "gates": f"{len(first.gates)} attention layers" if first.gates else "none: no known attention layer",
    }
    page.write_with_figures(out / "explain.html", f"What {model_name} sees", Headline(facts=facts))
    return out / "explain.html"


def _add_image(page: Page, explanation: Explanation, number: int) -> None:
    prediction = explanation.prediction
    name, target = Path(prediction.image).name, explanation.target
    head, peak = f"{explanation.method} for {target}", _peak(explanation)
    rows: list[Row] = [
        [label, Bar(share, f"{share:.1%}")]
        for label, share in zip(prediction.labels, prediction.probabilities, strict=True)
    ]
    if prediction.is_unknown:
        rows.insert(0, [prediction.answer, f"no class reaches {prediction.unknown_below:.1%}"])
    image = Picture(enlarged(explanation.picture), f"{name} as the net sees it", ("as the net sees it",))
    heat = Picture(
        overlay(explanation.picture, explanation.heat),
        f"where {explanation.layer} counts for {target}: {peak}",
        (f"{head}, {explanation.probability:.1%}; {peak}",),
    )
    page.add(name, Group("trio", (image, heat, Table(("class", "probability"), rows))))
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).stem)[:60]
    page.plots[f"image-{number}-{stem}"] = image_plot(explanation, head)
    if explanation.gates:
        summary = "Channel gates: each row is a layer, from the first to the last, each column a channel"
        parts: list[Part] = [_opened("Channel gates", summary, gate_strips(explanation.gates), number)]
        if explanation.spatial:
            maps = Group("maps", [_map(layer) for layer in explanation.spatial])
            parts.append(_opened("Spatial gates", "Spatial gates", maps, number))
        page.add("", *parts)


def _opened(heading: str, summary: str, part: Part, number: int) -> Part:
    return Group("", (Text(heading, "h3"), part)) if number <= _OPEN else Folded(summary, (part,))


def _map(layer: LayerGates) -> Picture:
    """A spatial gate (H, W), 0 to 1 or 2, in colours."""
    low, high = layer.gates.min(), layer.gates.max()
    name = layer.name.removesuffix(".spatial")
    return Picture(
        heat_pixels(layer.gates / (2.0 if high > 1 else 1.0)), f"gate of {name}", (f"{name}: {low:.2f} to {high:.2f}",)
    )


def _peak(explanation: Explanation) -> str:
    if explanation.peak is None:
        return "nothing in this layer counts for the class"
    row, column = explanation.peak
    height, width = explanation.heat.shape
    return f"hottest at row {row}, column {column} of {height} x {width}"


def _add_gates(page: Page, explanations: Sequence[Explanation]) -> None:
    if not explanations[0].gates:
        return page.add("Channel gates", note=NO_GATES)
    images = [
        (f"{Path(explanation.prediction.image).name}: {explanation.prediction.answer}", explanation.gates)
        for explanation in explanations
    ]
    text = "The mean of each layer's factors for its channels; "
    if len(images) == 1:
        text += "the shape shows their distribution."
    elif len(images) <= BANDS:
        text += "the band is one standard deviation over the channels."
    else:
        text += "each line is an image."
    page.add("Channel gates by depth", page.figure("gates", gates_plot(images), wide=True), note=text)
    rows = gate_differences(
        [explanation.gates for explanation in explanations],
        [explanation.prediction.indices[0] for explanation in explanations],
    )
    if rows:
        page.add(
            "How much the gates of two images differ",
            page.figure("gate-differences", difference_plot(rows), wide=True),
            note=(
                "A small value means that the layer treats all images alike. A layer is specific to the class where "
                "images of different predicted classes differ more than images of one class. Hu et al. find this in "
                "late layers; a few images are an example, not a proof."
            ),
        )


def image_plot(explanation: Explanation, title: str) -> Plot:
    """The image, the map over the image under `title`, and the probabilities of the top classes."""
    picture, prediction = explanation.picture, explanation.prediction

    def draw(figure: Figure) -> None:
        panels: Any = figure.subplots(1, 3, width_ratios=(1, 1, 1.1))
        pictures = (("image", enlarged(picture)), (title, overlay(picture, explanation.heat)))
        for axes, (heading, pixels) in zip(panels[:2], pictures, strict=True):
            axes.imshow(pixels)
            axes.set_title(heading, fontsize=9)
            axes.axis("off")
        places = range(len(prediction.labels))
        bars = panels[2].barh(places, prediction.probabilities, color=RIGHT)
        panels[2].bar_label(bars, [f"{share:.1%}" for share in prediction.probabilities], padding=3, fontsize=7)
        panels[2].set_yticks(places, [shortened(name) for name in prediction.labels])
        panels[2].set(xlim=(0, 1.25), ylim=(len(places) - 0.4, -0.6))
        panels[2].set_xticks([0, 0.5, 1])
        panels[2].xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        panels[2].spines[["top", "right"]].set_visible(False)

    return Plot(draw, 8.4, 2.8, title, "")


def difference_plot(rows: Sequence[GateDifference]) -> Plot:
    """The difference between the gates of two images by depth, for images of one class and of different classes."""

    def draw(figure: Figure) -> None:
        axes: Any = figure.subplots()
        for field, color, style, label in (
            ("other_class", WRONG, "o-", "images of different classes"),
            ("same_class", RIGHT, "s--", "images of one class"),
        ):
            values = [getattr(row, field) for row in rows]
            if None not in values:
                axes.plot(range(len(rows)), values, style, color=color, markersize=4, linewidth=1.5, label=label)
        depth_axis(axes, [row.layer for row in rows])
        axes.set_ylim(bottom=0)
        axes.set_ylabel("mean |difference| of two images")
        legend_above(axes)

    kinds = [("different classes", "other_class"), ("one class", "same_class")]
    text = "; ".join(
        f"{name}: {getattr(rows[0], field):.3f} in the first layer, {getattr(rows[-1], field):.3f} in the last"
        for name, field in kinds
        if getattr(rows[0], field) is not None
    )
    alt = f"Difference of the gates of two images by depth. {text}."
    return Plot(draw, 8.6, 3.4, alt, "How much the gates of two images differ, by depth")
