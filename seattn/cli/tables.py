"""Tables in the terminal: the nets of this package, a profile, an evaluation."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seattn.evaluation.profile.compare import COMPARED, Comparison
from seattn.evaluation.profile.costs import Profile, Stage, digits, number
from seattn.models.listing import NO_WEIGHTS, Net

if TYPE_CHECKING:
    from seattn.evaluation.probabilities.ensemble import Member
    from seattn.evaluation.scoring import Evaluation


_NOTE = (
    "For one image. MACs: half the FLOPs of convolutions and matrices. Kept: for the backward in training, in fp32, "
    "without parameters. T-passes: reads and writes of a map at a block's end and by its attention, forward / backward "
    "of one block, with Triton kernels on a GPU in a batch of 96 or more; eager: each step by itself; moved: by the "
    "former, in fp32. All numbers are counted, not measured."
)
_HEADINGS = {"parameters": "parameters", "macs": "MACs", "activation_bytes": "kept", "bytes_moved": "moved"}


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print the parts of the model and of the other model, and the differences in percent."""
    model, against = comparison.model, comparison.against
    console.print(_parts(model.name, model.profile))
    if against is not None:
        console.print(_parts(against.name, against.profile))
        console.print(_differences(against.name, comparison))
    console.print(Text(_NOTE, style="dim"))
    for named in filter(None, (model, against)):
        if named.profile.uncounted:
            kinds = ", ".join(named.profile.uncounted)
            console.print(Text(f"{named.name}: the T-passes of {kinds} are not counted.", style="dim"))


def _parts(name: str, profile: Profile) -> Table:
    size = "x".join(map(str, profile.input_size))
    table = _table(f"{name}, {size}")
    headings = ("parameters", "attention", "MACs", "attention", "MB kept", "T-passes", "eager", "MB moved")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for stage in profile.stages:
        table.add_row(*_cells(stage), end_section=stage is profile.stages[-1])
    table.add_row(*_cells(profile.total), style="bold")
    return table


def _table(title: str) -> Table:
    """A table with the column of the parts; it is narrow: eight more columns fit into 80 characters."""
    table = Table(title=Text(title, style="bold"), title_justify="left", box=SIMPLE_HEAD)
    table.padding = (0, 0)
    table.add_column("part", overflow="fold")
    return table


def _cells(stage: Stage) -> tuple[str, ...]:
    passes = eager = ""
    if stage.blocks:
        passes = f"{stage.passes / stage.blocks:.3g}/{stage.passes_backward / stage.blocks:.3g}"
        eager = f"{stage.eager_passes / stage.blocks:.3g}/{stage.eager_passes_backward / stage.blocks:.3g}"
    return (
        stage.name,
        f"{stage.parameters:,}",
        f"{stage.attention_parameters:,}" if stage.attention_parameters else "",
        number(stage.macs),
        number(stage.attention_macs) if stage.attention_macs else "",
        _megabytes(stage.activation_bytes),
        passes,
        eager,
        _megabytes(stage.bytes_moved) if stage.blocks else "",
    )


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.{digits(value / 1e6)}f}"


def _differences(name: str, comparison: Comparison) -> Table:
    table = _table(f"against {name}")
    for field in COMPARED:
        table.add_column(_HEADINGS[field], justify="right")
    percent = comparison.percent()
    for place, (part, values) in enumerate(percent.items(), start=1):
        last = place == len(percent)
        cells = ("" if value is None else f"{value:+.2f} %" for value in values.values())
        table.add_row(part, *cells, style="bold" if last else None, end_section=place == len(percent) - 1)
    return table


def headline(evaluation: "Evaluation") -> str:
    """Top-1 with its 95% interval and n, in one line."""
    low, high = evaluation.top1_low, evaluation.top1_high
    return f"top-1 {evaluation.top1:.2%} (95% interval {low:.2%} to {high:.2%}, n = {evaluation.n:,})"


def print_members(console: Console, members: Sequence["Member"]) -> None:
    """Print the accuracy of each model alone, and the gain of all together over it."""
    columns = ("model", "top-1", "95% interval", "gain", "95% interval", "p")
    table = Table(*columns, box=SIMPLE_HEAD, padding=(0, 0))
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify = "right"
    for member in members:
        gain = member.gain
        table.add_row(
            Text(member.model),
            f"{member.top1:.2%}",
            f"{member.top1_low:.2%} to {member.top1_high:.2%}",
            f"{100 * gain.change:+.2f}",
            f"{100 * gain.low:+.2f} to {100 * gain.high:+.2f}",
            "" if gain.p is None else f"{gain.p:.2g}",
        )
    console.print(table)
    note = (
        f"gain: the {len(members)} models together against the model alone, in points, on the same images; McNemar's p"
    )
    console.print(Text(note, style="dim"))


def print_evaluation(console: Console, evaluation: "Evaluation", *, pairs: int = 5) -> None:
    """Print the headline, a table of the classes and the `pairs` most frequent confusions."""
    console.print(Text(headline(evaluation), style="bold"))
    k = min(5, len(evaluation.class_names))
    divided = evaluation.temperature != 1
    by = f"; loss and ECE with the weights' temperature {evaluation.temperature:g}" if divided else ""
    console.print(Text(f"top-{k} {evaluation.top5:.2%}, loss {evaluation.loss:.4f}, ECE {evaluation.ece:.4f}{by}"))
    if evaluation.superclass_top1 is not None:
        console.print(Text(f"top-1 of superclasses {evaluation.superclass_top1:.2%}"))
    table = Table("class", "recall", "precision", "F1", "images")
    for column in table.columns[1:]:
        column.justify = "right"
    for score in evaluation.per_class:
        cells = (f"{score.recall:.1%}", f"{score.precision:.1%}", f"{score.f1:.1%}", str(score.support))
        table.add_row(Text(score.name), *cells)
    console.print(table)
    worst = evaluation.worst_pairs(pairs)
    if worst:
        table = Table("true", "taken for", "times", title="most frequent confusions", title_justify="left")
        table.columns[2].justify = "right"
        for true, predicted, count in worst:
            table.add_row(Text(true), Text(predicted), str(count))
        console.print(table)


def nets_tables(nets: Sequence[Net]) -> list[Table]:
    """A table for each family, with its data sets in the title."""
    width = max(len(net.name) for net in nets)
    tables = []
    for family, members in groupby(nets, key=lambda net: net.family):
        rows = list(members)
        tags = list(dict.fromkeys(f".{tag}" for net in rows for tag in net.weights if tag))
        title = Text(f"{family}: tags {', '.join(tags)}" if tags else family, style="bold")
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
        table.add_column("net", min_width=width, no_wrap=True)
        for heading in ("parameters", "MACs", "input"):
            table.add_column(heading, justify="right", min_width=9)
        table.add_column("weights", overflow="fold")
        for net in rows:
            costs = ["", "", ""]
            if net.costs is not None:
                size = "x".join(map(str, net.costs.input_size))
                costs = [f"{net.costs.parameters / 1e6:.2f} M", number(net.costs.macs), size]
            table.add_row(Text(net.name), *costs, Text(_places(net.weights)))
        tables.append(table)
    return tables


def _places(weights: dict[str, str]) -> str:
    places = {tag: place for tag, place in weights.items() if place != NO_WEIGHTS}
    return ", ".join(f"{tag}: {place}" if tag else place for tag, place in places.items()) or NO_WEIGHTS
