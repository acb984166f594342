"""The files that a browser has sent, as gradio passes them to a function that asks for no preprocessing.

gradio's preprocessing is off. With it, the page would give no reason for an image that Pillow cannot read, and the
names of uploaded files would be changed. Without it, a request could name any file of this machine; therefore only
files in the folder of the uploads are accepted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seattn.core.errors import UserError


@dataclass(frozen=True)
class Upload:
    """An image file and the name that its owner gave it."""

    path: Path
    name: str


def uploaded_image(value: Mapping[str, Any] | None, folder: Path) -> Upload | None:
    """The file of a `gr.Image`; None if it is empty.

    Args:
        folder: where gradio puts uploaded files.

    Raises:
        UserError: if the file is not in `folder`.
    """
    if value is None or not value.get("path"):
        return None
    path = Path(value["path"])
    name = str(value.get("orig_name") or path.name)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{name} was not uploaded to this page")
    return Upload(path, name)


def uploaded_files(values: Sequence[Mapping[str, Any]] | None, folder: Path) -> list[Upload]:
    """The files of a `gr.File` for several files; raises as `uploaded_image`."""
    uploads = [uploaded_image(value, folder) for value in values or ()]
    return [upload for upload in uploads if upload is not None]
