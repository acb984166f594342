"""The confusion matrix of a card, as an SVG file on white paper, for pages of any colour."""

import hashlib
import json
from functools import partial

from seattn.evaluation.figures import confusion_text, draw_confusion
from seattn.evaluation.style import Plot
from seattn.hub.facts import ClassResults


def render_picture(classes: ClassResults) -> str:
    """The text of the SVG file.

    Its description ends with a digest of the counts, which is the same for every version of matplotlib.
    """
    names = classes.class_names
    side = 5.2 if len(names) <= 20 else 6.5
    draw = partial(draw_confusion, classes.confusion, names)
    plot = Plot(draw, width=side, height=side - 0.2, alt=confusion_text(classes.confusion, names))
    metadata = {"Title": classes.name, "Description": describe(classes)}
    return plot.svg(paper="white", metadata=metadata).decode("utf-8")


def describe(classes: ClassResults) -> str:
    """The picture in words, and the SHA-256 of its counts."""
    digest = hashlib.sha256(json.dumps(classes.confusion).encode()).hexdigest()
    return f"{confusion_text(classes.confusion, classes.class_names)} Counts: SHA-256 {digest}."
