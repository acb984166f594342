"""Write squeeze-excite as a kernel that Hugging Face's package `kernels` loads, without seattn and timm.

    FOLDER/README.md, LICENSE
    FOLDER/build/<variant>/metadata.json             as in "Kernel requirements", https://huggingface.co/docs/kernels
    FOLDER/build/<variant>/__init__.py               the same names, for loaders that look here first
    FOLDER/build/<variant>/seattn_squeeze_excite/    __init__.py, layers.py, ops/, seattn_kernels/

`make hub-kernels` runs this file, which needs only Python. The same sources give the same bytes.
"""

import argparse
import base64
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from string import Template

from _sources import ROOT, gather

HERE = Path(__file__).resolve().parent
NAME = "seattn-squeeze-excite"
MODULE = NAME.replace("-", "_")
# Triton or PyTorch is chosen when an op is called, so the variants differ in name and metadata alone: one for each kind
# of torch, as `kernels` has them since 0.11.3, and "universal", for older ones and all devices that compute as a CPU.
VARIANTS = {"torch-cpu": "cpu", "torch-cuda": "cuda", "torch-rocm": "rocm", "torch-universal": "cpu"}
_OPERATOR = f"{MODULE}/ops/_operator.py"  # where the namespace of the operators is


def render(version: int) -> dict[str, str]:
    """Path within the folder to text, of all that is written."""
    sources = {path.name: path.read_text(encoding="utf-8") for path in sorted((HERE / MODULE).glob("*.py"))}
    package = {f"{MODULE}/{path}": text for path, text in (sources | gather("seattn.ops.se")).items()}
    package["__init__.py"] = f"from .{MODULE} import *\nfrom .{MODULE} import __all__, __doc__\n"
    card = Template((HERE / "CARD.md").read_text(encoding="utf-8"))
    files = {
        "README.md": card.substitute(name=NAME, version=version),
        "LICENSE": (ROOT / "LICENSE").read_text(encoding="utf-8"),
    }
    for variant, backend in VARIANTS.items():
        built = _variant(package, variant, backend, version)
        files |= {f"build/{variant}/{path}": text for path, text in built.items()}
    return files


def _variant(package: dict[str, str], variant: str, backend: str, version: int) -> dict[str, str]:
    # Unique for what is in it, as the namespace of its operators must be: two builds live in one process.
    content = json.dumps([version, package]).encode()
    identifier = f"_{MODULE}_{variant.removeprefix('torch-')}_{hashlib.sha256(content).hexdigest()[:10]}"
    assert package[_OPERATOR].count('NAMESPACE = "seattn"') == 1
    renamed = package[_OPERATOR].replace('NAMESPACE = "seattn"', f'NAMESPACE = "{identifier}"')
    files = package | {_OPERATOR: renamed}
    metadata = {
        "name": NAME,
        "id": identifier,
        "version": version,
        "license": "Apache-2.0",
        "python-depends": [],
        "backend": {"type": backend},
        "digest": {"algorithm": "sha256", "files": {path: _digest(text) for path, text in sorted(files.items())}},
    }
    return files | {"metadata.json": json.dumps(metadata, indent=2) + "\n"}


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def write(files: dict[str, str], folder: Path) -> None:
    """Write `files` into `folder`, which is absent, empty or an earlier build, and keep nothing else of that build.

    Raises:
        ValueError: if the folder holds anything else.
        OSError: if it cannot be written.
    """
    tops = sorted({path.partition("/")[0] for path in files})
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()) and not _is_build(folder):
        raise ValueError(f"{folder} holds other files; give a new folder, an empty one or an earlier build")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as part:  # beside the target: renamed, not copied
        for path, text in files.items():
            target = Path(part) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text.encode())
        for top in tops:
            old = folder / top
            if old.is_dir():
                shutil.rmtree(old)
            (Path(part) / top).replace(old)


def _is_build(folder: Path) -> bool:
    found = [path.read_text(encoding="utf-8") for path in folder.glob("build/*/metadata.json")]
    return bool(found) and all(f'"name": "{NAME}"' in text for text in found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 after one line that says what is wrong with the arguments."""
    parser = argparse.ArgumentParser(prog="stage.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="new, empty, or an earlier build")
    parser.add_argument(
        "--version", default=0, type=int, help="the kernel's version on the Hub, a branch v<version>; 0 is for trials"
    )
    chosen = parser.parse_args(arguments)
    try:
        if chosen.version < 0:
            raise ValueError(f"--version must be 0 or more; got {chosen.version}")
        files = render(chosen.version)
        write(files, chosen.folder)
    except (OSError, ValueError) as error:
        print(f"stage.py: {error}", file=sys.stderr)
        return 2
    print(f"{NAME} version {chosen.version}, {len(VARIANTS)} variants: {chosen.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
