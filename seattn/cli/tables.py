"""A profile as tables in the terminal."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seattn.evaluation.profile.compare import COMPARED, Comparison
from seattn.evaluation.profile.costs import Profile, Stage

_NOTE = (
    "For one image. MACs: half the FLOPs of convolutions and matrices. Kept: for the backward in training, in fp32, "
    "without parameters. T-passes: reads and writes of a map at a block's end and by its attention, forward / backward "
    "of one block, with Triton kernels on a GPU in a batch of 96 or more; eager: each step by itself; moved: by the "
    "former, in fp32. All of it is counted, nothing measured."
)
_HEADINGS = {"parameters": "parameters", "macs": "MACs", "activation_bytes": "kept", "bytes_moved": "moved"}


def number(value: float) -> str:
    """Three digits or all below 1000, with the letter of the thousand."""
    for letter, unit in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * unit:
            return f"{value / unit:.{_digits(value / unit)}f} {letter}"
    return f"{value:.{0 if value == int(value) else 1}f}"


def _digits(value: float) -> int:
    return 2 if value < 9.995 else 1 if value < 99.95 else 0


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print the parts of the model, of what it is compared with, and the differences in percent."""
    model, against = comparison.model, comparison.against
    console.print(_parts(model.name, model.profile))
    if against is not None:
        console.print(_parts(against.name, against.profile))
        console.print(_differences(against.name, comparison))
    console.print(Text(_NOTE, style="dim"))
    for named in filter(None, (model, against)):
        if named.profile.uncounted:
            kinds = ", ".join(named.profile.uncounted)
            console.print(Text(f"{named.name}: no T-passes are known of {kinds}; they are left out.", style="dim"))


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
    """With the column of the parts; narrow, so that eight more fit into 80 characters."""
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
    return f"{value / 1e6:.{_digits(value / 1e6)}f}"


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
