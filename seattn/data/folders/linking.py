"""Splits as folders of links: images of train fill the splits that a folder does not have."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from seattn.core.errors import UserError, counted
from seattn.core.files import printable
from seattn.data.folders.reading import UserImages


def link_splits(
    images: UserImages,
    root: Path,
    seed: int,
    *,
    needed: Sequence[str] = ("test", "validation"),
    earlier: Path | None = None,
) -> int:
    """Link the images as `root/<split>/<class>/…`; images of train fill the splits that are missing.

    A split that is `needed` and missing gets a tenth of each class, at least one image; the same for the same seed.

    Args:
        earlier: a folder that this function made before: the images in it stay in their splits, because a net
            that was trained on them must not be tested on them.

    Returns:
        The number of images that stay in the split of `earlier`.

    Raises:
        UserError: if a class has too few images for that, or the links cannot be made.
    """
    generator = torch.Generator().manual_seed(seed)
    missing = [name for name in needed if name not in images.splits]
    for split, files in images.splits.items():
        if split != "train":
            _link(images, split, range(len(files)), root / split)
    split_by_image = {} if earlier is None else _splits_by_image(earlier, (*missing, "train"))
    whole = images.splits["train"]
    kept = 0
    for label, name in enumerate(images.class_names):
        index = (whole.labels == label).nonzero().flatten()
        if len(index) <= len(missing):
            raise UserError(
                f"class {name!r} has {counted(len(index), 'image')} and needs at least {len(missing) + 1}: "
                f"{printable(images.folders['train'])} has no {' and no '.join(missing)} split, which is taken from "
                "these images"
            )
        order = index[torch.randperm(len(index), generator=generator)].tolist()
        share = max(1, round(len(order) / 10))
        parts: dict[str, list[int]] = {split: [] for split in ("train", *missing)}
        new: list[int] = []
        for i in order:
            parts.get(split_by_image.get(os.path.realpath(whole.paths[i]), ""), new).append(i)
        kept += len(order) - len(new)
        for split in missing:
            count = max(0, share - len(parts[split]))
            parts[split] += new[:count]
            new = new[count:]
        parts["train"] += new
        for split, chosen in parts.items():
            _link(images, "train", chosen, root / split)
    return kept


def _splits_by_image(root: Path, splits: Sequence[str]) -> dict[str, str]:
    """The split of each image that `root/<split>/<class>/` links to, by its real path."""
    return {os.path.realpath(link): split for split in splits for link in (root / split).glob("*/*")}


def _link(images: UserImages, split: str, index: Iterable[int], target: Path) -> None:
    """Link images of a split into `target/<class>`, without further folders: timm takes an image's folder as its class.

    The name of a folder in a class folder becomes a part of the link's name; a name that is in use gets a number.
    """
    files, folder, names = images.splits[split], images.folders[split], images.class_folders[split]
    for name in names:
        (target / name).mkdir(parents=True, exist_ok=True)
    for i in index:
        path, name = files.paths[i], names[int(files.labels[i])]
        inside = path.relative_to(folder).parts
        if inside[0] == name:
            inside = inside[1:]
        flat = Path("__".join(inside))
        link = target / name / flat
        number = 1
        while link.is_symlink():
            number += 1
            link = target / name / f"{flat.stem}__{number}{flat.suffix}"
        try:
            link.symlink_to(path.absolute())
        except OSError as error:
            raise UserError(
                f"cannot link {printable(path)} into {printable(target)}: {error.strerror}; split the folder by hand"
            ) from error
