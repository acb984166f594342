"""The progress of an epoch of training, on a terminal."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


def epoch_progress(*, enabled: bool = True) -> Progress:
    """A bar with the task's field `state`; nothing in a log, which gets a line an epoch.

    Written to stderr.
    """
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        console=console,
        disable=not (enabled and console.is_terminal),
    )
