"""The page of the app: one image with its classes and reasons, or many images as a table."""

import base64
import io
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr
from jinja2 import Environment, Template
from PIL import Image

from seattn.core.errors import UserError
from seattn.core.records import csv_text
from seattn.deploy.app.answers import Answer, Classifier
from seattn.deploy.app.uploads import uploaded_files, uploaded_image
from seattn.evaluation.figures import Pixels
from seattn.evaluation.prediction import CSV_COLUMNS, Prediction, Unreadable
from seattn.evaluation.style import PALETTE

TITLE = "Image classification"
CSV_NAME = "predictions.csv"
_SHOWN_CLASSES = 12  # named under the choice of weights
_SHOWN_ROWS = 100  # of the table; the CSV has all
_PROGRESS = gr.Progress()  # gradio passes the progress bar of the call in place of this default
_KEPT = 3600  # seconds for which uploaded files and results are kept
_WAITING = "Give an image: upload a file, take a photo, or choose an example."
_WAITING_FOR_MANY = "Give images: each gets its five most probable classes, as `seattn predict --csv` prints them."


def build_page(
    models: Mapping[str, str],
    folder: Path,
    *,
    examples: Sequence[Path] = (),
    example_classes: Sequence[str] = (),
    title: str = TITLE,
    device: str = "cpu",
) -> gr.Blocks:
    """The page, which `run` serves; the first net is loaded at once, the others when they are chosen.

    Args:
        models: name -> what `seattn.models.load.load_model` takes; the first is the choice at the start.
        folder: of uploaded files and results; GRADIO_TEMP_DIR must name it.
        examples: image files to choose from.
        example_classes: only nets that have all these classes show the examples.
        device: where to compute.

    Raises:
        UserError: if there are no models or the first cannot be loaded.
    """
    if not models:
        raise UserError("the page needs a model; there are no trained weights in this package")
    classifier = Classifier(models, device=device)
    first = classifier.names[0]
    page = _Page(classifier, folder, set(example_classes))
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(_KEPT, _KEPT)) as blocks:
        gr.Markdown(f"# {title}")
        with gr.Row():
            with gr.Column(scale=2):
                model = gr.Dropdown(list(classifier.names), value=first, label="Weights", filterable=False)
            with gr.Column(scale=3):
                unknown_below = gr.Slider(0, 1, value=0, step=0.01, label="Answer “unknown” below this probability")
        net = gr.HTML(page.net(first), padding=False)
        with gr.Tab("One image"), gr.Row():
            with gr.Column(scale=2, min_width=280):
                image = gr.Image(
                    label="Image",
                    sources=["upload", "webcam", "clipboard"],
                    type="filepath",
                    height=300,
                    elem_classes="seattn-input",
                )
                shown = gr.Examples(
                    [str(path) for path in examples],
                    image,
                    label="Examples",
                    examples_per_page=24,
                    visible=bool(examples) and page.fits_examples(first),
                )
            with gr.Column(scale=3, min_width=280):
                answer = gr.HTML(_html("hint", _WAITING), padding=False)
                label = gr.Label(num_top_classes=5, show_heading=False, label="Classes", visible=False)
                reasons = gr.HTML(visible=False, padding=False)
        with gr.Tab("Many images"):
            uploads = gr.File(label="Images", file_count="multiple", height=180)
            start = gr.Button("Classify", variant="primary")
            summary = gr.HTML(_html("hint", _WAITING_FOR_MANY), padding=False)
            download = gr.DownloadButton("Download CSV", visible=False)
            table = gr.HTML(visible=False, padding=False)
        one = {
            "fn": page.one,
            "inputs": [model, image, unknown_below],
            "outputs": [answer, label, reasons],
            "preprocess": False,
        }
        gr.on([image.change, unknown_below.change], trigger_mode="always_last", **one)
        model.change(page.net_and_examples, model, [net, shown.dataset]).then(**one)
        start.click(page.many, [model, uploads, unknown_below], [summary, download, table], preprocess=False)
    return blocks


def style() -> dict[str, Any]:
    """The look of the page, as arguments of gradio's `launch`: no font comes from the network."""
    theme = gr.themes.Default(
        primary_hue="sky", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    return {"theme": theme, "css": _template("page.css.j2").render(palette=PALETTE)}


class _Page:
    """What the page shows after each event, in the order of gradio's outputs."""

    def __init__(self, classifier: Classifier, folder: Path, example_classes: set[str]) -> None:
        self._classifier, self._folder, self._example_classes = classifier, folder, example_classes

    def fits_examples(self, name: str) -> bool:
        """Whether the net called `name` has the classes of the examples."""
        return self._example_classes <= set(self._classifier.describe(name).classes)

    def net(self, name: str) -> str:
        """The facts about the net called `name`."""
        return _html("net", self._classifier.describe(name), _SHOWN_CLASSES)

    def net_and_examples(self, name: str) -> list[Any]:
        """The facts about the net, and whether the examples fit it."""
        try:
            return [self.net(name), gr.update(visible=self.fits_examples(name))]
        except UserError as error:
            return [_html("problem", str(error)), gr.update(visible=False)]

    def one(self, name: str, image: Mapping[str, Any] | None, unknown_below: float) -> list[Any]:
        """The answer to one image, or why there is none."""
        hidden = gr.update(visible=False, value=None)
        try:
            upload = uploaded_image(image, self._folder)
            if upload is None:
                return [_html("hint", _WAITING), hidden, hidden]
            answer = self._classifier.answer(name, upload, unknown_below)
        except UserError as error:
            return [_html("problem", f"{error}."), hidden, hidden]
        return [
            _html("answer", answer.prediction),
            gr.update(visible=True, value=_confidences(answer.prediction)),
            gr.update(visible=True, value=_reasons(answer)),
        ]

    def many(
        self, name: str, files: Sequence[Mapping[str, Any]] | None, unknown_below: float, progress: Any = _PROGRESS
    ) -> list[Any]:
        """The answers to many images: a summary, the CSV, and a table with one line for each image."""
        hidden = gr.update(visible=False, value=None)
        predictions, unread = list[Prediction](), list[Unreadable]()
        try:
            uploads = uploaded_files(files, self._folder)
            if not uploads:
                return [_html("hint", _WAITING_FOR_MANY), hidden, hidden]
            results = self._classifier.answer_each(name, uploads, unknown_below)
            for number, result in enumerate(results, 1):
                progress((number, len(uploads)), unit="images")
                if isinstance(result, Unreadable):
                    unread.append(result)
                else:
                    predictions.append(result)
        except UserError as error:
            return [_html("problem", f"{error}."), hidden, hidden]
        summary = _html("batch", len(predictions), unread)
        if not predictions:
            return [summary, hidden, hidden]
        return [
            summary,
            gr.update(visible=True, value=str(write_csv(predictions, self._folder))),
            gr.update(visible=True, value=_html("table", predictions, _SHOWN_ROWS)),
        ]


def write_csv(predictions: Sequence[Prediction], folder: Path) -> Path:
    """A new file below `folder` with the rows that `seattn predict --csv` prints."""
    path = Path(tempfile.mkdtemp(prefix="csv-", dir=folder)) / CSV_NAME
    rows = [row for prediction in predictions for row in prediction.to_rows()]
    path.write_bytes(csv_text([CSV_COLUMNS, *rows]).encode())  # the same line ends on every system
    return path


def _confidences(prediction: Prediction) -> dict[str, float]:
    """Name -> probability; the index distinguishes classes of the same name, as ImageNet's two cranes."""
    labels = prediction.labels
    names = [
        f"{label} ({index})" if labels.count(label) > 1 else label
        for label, index in zip(labels, prediction.indices, strict=True)
    ]
    return dict(zip(names, prediction.probabilities, strict=True))


def _reasons(answer: Answer) -> str:
    svg = "" if answer.gates is None else answer.gates.themed()
    gates = svg[svg.find("<svg") :], "" if answer.gates is None else answer.gates.alt
    pictures = [(_png(answer.picture), "As the net sees it")]
    if answer.heat is not None:
        pictures.append((_png(answer.heat), f"Where the net looks for {answer.prediction.labels[0]} (Grad-CAM)"))
    return _html("reasons", pictures, *gates, answer.notes)


def _png(pixels: Pixels) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _html(part: str, *arguments: Any) -> str:
    return str(getattr(_template("answer.html.j2").module, part)(*arguments))


@cache
def _template(name: str) -> Template:
    text = (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")
    return Environment(autoescape=name.endswith(".html.j2"), trim_blocks=True, lstrip_blocks=True).from_string(text)
