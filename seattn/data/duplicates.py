"""Images that stand in two splits, found by content.

Shapes: N images of a set, H x W pixels.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

_HEAD = 2**16  # bytes of a file that are compared before all of it
_logger = logging.getLogger("seattn")


def warn_of_shared_files(test: Sequence[Path], train: Sequence[Path]) -> None:
    """Warn, in one line, of test files whose bytes (SHA-256) are those of a training file."""
    heads = _first_of(_head, train)
    found = [(path, other) for path in test if (other := heads.get(_head(path)))]
    if found:  # few: now all of their bytes, against every training file that begins alike
        wanted = {_head(path) for path, _ in found}
        whole = _first_of(_content, [path for path in train if _head(path) in wanted])
        _warn_of_pairs([(path, other) for path, _ in found if (other := whole.get(_content(path)))], len(test))


def warn_of_shared_images(test: torch.Tensor, train: torch.Tensor) -> None:
    """Warn, in one line, of test images (N, H, W, 3) whose pixels (SHA-256) are those of a training image."""
    known = {hashlib.sha256(image.tobytes()).digest(): i for i, image in enumerate(train.numpy())}
    found = [(i, known.get(hashlib.sha256(image.tobytes()).digest())) for i, image in enumerate(test.numpy())]
    _warn_of_pairs([(f"image {i}", f"image {j}") for i, j in found if j is not None], len(test))


def _warn_of_pairs(pairs: Sequence[tuple[object, object]], count: int) -> None:
    if pairs:
        _logger.warning(
            "%d of %d test images also stand in train, by content: the score is too high; the first is %s, there %s",
            *(len(pairs), count, *pairs[0]),
        )


def _first_of(key: Callable[[Path], bytes], paths: Sequence[Path]) -> dict[bytes, Path]:
    with ThreadPoolExecutor() as pool:
        return dict(zip(reversed(list(pool.map(key, paths))), reversed(paths), strict=True))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return path.stat().st_size.to_bytes(8, "big") + hashlib.sha256(file.read(_HEAD)).digest()


def _content(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
