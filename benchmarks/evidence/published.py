"""What others publish for the nets of the package or for their plain twins, to stand beside our accuracy."""

from dataclasses import dataclass
from pathlib import Path

from seattn.core.records import read_rows

PUBLISHED = Path(__file__).with_name("published.csv")


@dataclass(frozen=True)
class PublishedRow:
    """The best accuracy that was found for one of the nets.

    Args:
        name: our weights, `arch.tag`.
        net: the net of others: the same net, or its plain twin.
        top1: on the same test split unless `source` says otherwise, in per cent, as its source gives it.
        source: the project or paper that publishes it, with what differs from our training.
        url: where.
    """

    name: str
    net: str
    top1: float
    source: str
    url: str

    @property
    def text(self) -> str:
        """For a cell of a Markdown table."""
        return f"{self.top1:.2f} {self.net} ([{self.source}]({self.url}))"


def published_by_others(path: Path = PUBLISHED) -> dict[str, str]:
    """The text about each of our weights for which others publish an accuracy."""
    return {row.name: row.text for row in read_rows(PublishedRow, path)}
