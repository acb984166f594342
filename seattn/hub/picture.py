"""The confusion matrix of a card, as an SVG file on white paper, for pages of any colour."""

import hashlib
import json

from seattn.evaluation.figures import confusion_plot
from seattn.hub.facts import ClassResults


def render_picture(classes: ClassResults) -> str:
    """The text of the SVG file.

    Its description ends with a digest of the counts, which is the same for every version of matplotlib.
    """
    plot = confusion_plot(classes, side=5.2 if len(classes.class_names) <= 20 else 6.5)
    metadata = {"Title": classes.name, "Description": describe(classes)}
    return plot.svg(paper="white", metadata=metadata).decode("utf-8")


def describe(classes: ClassResults) -> str:
    """The picture in words, and the SHA-256 of its counts."""
    digest = hashlib.sha256(json.dumps(classes.confusion).encode()).hexdigest()
    return f"{confusion_plot(classes).alt} Counts: SHA-256 {digest}."
