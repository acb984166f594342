"""Images that are in two splits, found by content.

Shapes: N images of a set, H x W pixels.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from seattn.core.files import printable

_HEAD = 2**16  # bytes of a file that are compared first
_logger = logging.getLogger("seattn")


def warn_of_shared_files(test: Sequence[Path], train: Sequence[Path]) -> None:
    """Warn, in one line, of test files whose bytes (SHA-256) are those of a training file."""
    train_heads = _by_digest(_head, train)
    candidates = [path for path in test if _head(path) in train_heads]
    if candidates:  # few: all their bytes are compared with those of every training file with the same first bytes
        heads = {_head(path) for path in candidates}
        contents = _by_digest(_content, [path for path in train if _head(path) in heads])
        pairs = [(path, contents.get(_content(path))) for path in candidates]
        _warn_of_pairs([(printable(path), printable(twin)) for path, twin in pairs if twin is not None], len(test))


def warn_of_shared_images(test: torch.Tensor, train: torch.Tensor) -> None:
    """Warn, in one line, of test images (N, H, W, 3) whose pixels (SHA-256) are those of a training image."""
    known = {hashlib.sha256(image.tobytes()).digest(): i for i, image in enumerate(train.numpy())}
    pairs = [(i, known.get(hashlib.sha256(image.tobytes()).digest())) for i, image in enumerate(test.numpy())]
    _warn_of_pairs([(f"image {i}", f"image {j}") for i, j in pairs if j is not None], len(test))


def _warn_of_pairs(pairs: Sequence[tuple[str, str]], count: int) -> None:
    if pairs:
        _logger.warning(
            "%d of %d test images are also in train, by content: the score is too high; the first is %s, in train %s",
            len(pairs),
            count,
            pairs[0][0],
            pairs[0][1],
        )


def _by_digest(digest: Callable[[Path], bytes], paths: Sequence[Path]) -> dict[bytes, Path]:
    """Digest -> the first path that has it."""
    with ThreadPoolExecutor() as pool:
        return dict(zip(reversed(list(pool.map(digest, paths))), reversed(paths), strict=True))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return path.stat().st_size.to_bytes(8, "big") + hashlib.sha256(file.read(_HEAD)).digest()


def _content(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
