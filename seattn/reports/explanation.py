"""Explanations as one HTML page, and their figures as PNGs beside it."""

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from seattn._explain_plots import BANDS, Pixels, difference_plot, enlarged, gates_plot, image_plot, map_pixels, overlay
from seattn._report_grid import png_uri
from seattn._report_page import definitions
from seattn._report_strips import strips_html
from seattn.core.files import require_writable, write_text
from seattn.evaluation.explanation import Explanation
from seattn.evaluation.gates import gate_differences
from seattn.reports.page import Pages, bar, folded, table

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
