"""An evaluation as tables in the terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from seattn.evaluation.scoring import Evaluation


def headline(evaluation: Evaluation) -> str:
    """Top-1 with its 95% interval and n, in one line."""
    low, high = evaluation.top1_low, evaluation.top1_high
    return f"top-1 {evaluation.top1:.2%} (95% interval {low:.2%} to {high:.2%}, n = {evaluation.n:,})"


def print_evaluation(console: Console, evaluation: Evaluation, *, pairs: int = 5) -> None:
    """Print the headline, a table of the classes and the `pairs` most frequent confusions."""
    console.print(Text(headline(evaluation), style="bold"))
    k = min(5, len(evaluation.class_names))
    console.print(Text(f"top-{k} {evaluation.top5:.2%}, loss {evaluation.loss:.4f}, ECE {evaluation.ece:.4f}"))
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
