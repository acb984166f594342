"""timm's scripts with the models of this package: `seattn timm validate.py …`.

timm discovers no plugins, and only its train.py can import one (`device_modules`). Here the nets are registered first,
and then the script runs as by `python script`, with the installed timm.
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
    """The file of `script`, which is a path, or a name in the folder $TIMM_SCRIPTS.

    Raises:
        UserError: if there is none.
    """
    folder = os.environ.get(FOLDER)
    for path in (Path(script), Path(folder or ".") / script):
        if path.is_file():
            return path
    if Path(script).is_dir():
        raise UserError(f"{script} is a folder; give the path of one of timm's scripts")
    place = f"or in {FOLDER}={folder}" if folder else f"and {FOLDER} is not set to a folder to search"
    raise UserError(
        f"there is no script {script} here {place}; timm's scripts are in its repository, not in its package: "
        f"git clone https://github.com/huggingface/pytorch-image-models and set {FOLDER} to that folder"
    )


def run_script(script: str, args: Sequence[str]) -> None:
    """Run `script` with `args` as `python script args…` would, with our models in timm's registry.

    Raises:
        UserError: if there is no such script.
        SystemExit: if the script ends with an exit code.
    """
    import seattn.models  # noqa: F401  # worker processes that are forked have our models

    path = find_script(script)
    sys.argv = [str(path), *args]
    sys.path.insert(0, str(path.resolve().parent))
    # Spawned workers import our models when they unpickle one; timm's scripts build none in a worker.
    multiprocessing.set_forkserver_preload(["__main__", "seattn.models"])
    runpy.run_path(str(path), run_name="__main__")
