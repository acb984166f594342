"""The channel gates of one image as heat strips, a layer a row.

Shapes: C channels, H x W pixels.
"""

from collections.abc import Sequence
from html import escape

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

from seattn._report_gates import LayerGates
from seattn._report_grid import png_uri


def gates_html(layers: Sequence[LayerGates], image: npt.NDArray[np.uint8], name: str) -> str:
    """A heat strip for each layer, beside the image (H, W, 3) that they belong to."""
    if not layers:
        return '<p class="soft">This model has no attention layer with channel gates.</p>'
    return (
        f'<p class="soft">What each attention layer multiplies its channels by for one image, from the first layer '
        f"(top) to the last; one column a channel.</p>"
        f'<div class="gates"><figure><img src="{png_uri(image)}" alt="the image: {escape(name)}">'
        f"<figcaption>{escape(name)}</figcaption></figure>"
        f"{strips_html(layers)}</div>"
    )


def strips_html(layers: Sequence[LayerGates]) -> str:
    """The strips, the first layer on top, and their scale."""
    top = 2.0 if max(float(layer.gates.max()) for layer in layers) > 1 else 1.0  # 2 * sigmoid gates reach 2
    rows = []
    for layer in layers:
        low, high = float(layer.gates.min()), float(layer.gates.max())
        count = len(layer.gates)
        alt = f"{count} gates of {layer.name} between {low:.2f} and {high:.2f}, mean {layer.gates.mean():.2f}"
        rows.append(
            f'<span>{escape(layer.name)}</span><img src="{_strip(layer.gates / top)}" alt="{escape(alt)}">'
            f"<span>{count} ch, {low:.2f} to {high:.2f}</span>"
        )
    scale = _strip(np.linspace(0, 1, 128, dtype=np.float32))
    return (
        f'<div class="strips">{"".join(rows)}'
        f'<span>scale</span><img class="scale" src="{scale}" alt="colour scale from 0 to {top:g}">'
        f'<span></span><span></span><span class="ends"><span>0, closed</span><span>{top:g}</span></span></div>'
    )


def _strip(values: npt.NDArray[np.float32]) -> str:
    """`values` (C,) between 0 and 1 as an image one pixel high."""
    colors = mpl.colormaps["viridis"](np.clip(values, 0, 1), bytes=True)[None, :, :3]  # (1, C, 3)
    return png_uri(np.ascontiguousarray(colors))
