"""`make hub-kernels`, as a test runs it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
STAGE = ROOT / "kernels" / "hub" / "stage.py"


def stage(folder: Path, *arguments: str, command: Path = STAGE) -> subprocess.CompletedProcess[str]:
    """Run the command; the caller looks at returncode, stdout and stderr."""
    # -E, -S: Python alone, as a user without .venv has it; -B: no bytecode beside the sources
    words = [sys.executable, "-E", "-S", "-B", str(command), str(folder), *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def staged(folder: Path, *arguments: str, command: Path = STAGE) -> Path:
    """The folder, written."""
    done = stage(folder, *arguments, command=command)
    assert done.returncode == 0, done.stderr
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Path to bytes of every file."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
