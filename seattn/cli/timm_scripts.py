"""timm's scripts with the models of this package: `seattn timm validate.py …`.

timm discovers no plugins, and only its train.py can import one (`device_modules`). Here the package is imported first
and the script then run as Python itself would run it, against the timm that is installed.
"""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from seattn.core.errors import UserError

FOLDER = "TIMM_SCRIPTS"  # environment variable: a checkout of timm's repository


def find_script(script: str) -> Path:
    """The file that `script` names: a path, or a name in the folder $TIMM_SCRIPTS.

    Raises:
        UserError: if there is none.
    """
    folder = os.environ.get(FOLDER)
    for path in (Path(script), Path(folder or ".") / script):
        if path.is_file():
            return path
    where = f"nor in {FOLDER}={folder}" if folder else f"and {FOLDER} names no folder to look in"
    raise UserError(
        f"no script {script} here, {where}; timm's scripts are in its repository, not in its package: "
        f"git clone https://github.com/huggingface/pytorch-image-models and set {FOLDER} to that folder"
    )


def run_script(script: str, args: Sequence[str]) -> None:
    """Run `script` with `args` as `python script args…` would, with our models in timm's registry.

    Raises:
        UserError: if there is no such script.
        SystemExit: as the script ends.
    """
    path = find_script(script)
    sys.argv = [str(path), *args]
    sys.path.insert(0, str(path.resolve().parent))
    # Forked workers have our models. Spawned ones import them when they unpickle one; timm's build none themselves.
    multiprocessing.set_forkserver_preload(["__main__", "seattn"])
    runpy.run_path(str(path), run_name="__main__")
