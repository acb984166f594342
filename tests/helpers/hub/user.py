"""What tests of the Hub do as a user would."""

import json
import os
from pathlib import Path

from safetensors.torch import load_file, save_file

import seattn.models._pretrained as pretrained

NAME = "se_resnet20_cifar.cifar10"
REPO = "org/my_birds"
BIRDS = ("jay", "rook", "wren")


def read(folder):
    """Path -> content of all files of a folder."""
    folder = Path(folder)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def whole(path):
    """Whether nothing unfinished stands in the cache."""
    return not [file for file in Path(path).rglob("*") if file.name.endswith((".incomplete", ".tmp", ".part"))]


def flipped(data, at=-5):
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def with_config(files, **changes):
    """The same with other values in config.json; `a__b` is b in a."""
    config = json.loads(files["config.json"])
    for key, value in changes.items():
        where, _, inner = key.rpartition("__")
        (config[where] if where else config)[inner] = value
    return {**files, "config.json": json.dumps(config).encode()}


def packaged():
    """The weights that ship, as they are."""
    return (pretrained.WEIGHTS / f"{NAME}.safetensors").read_bytes()


def other_weights(tmp_path):
    """Whole weights of the same net, but other ones than those that ship."""
    state = load_file(pretrained.WEIGHTS / f"{NAME}.safetensors")
    state["fc.bias"] = state["fc.bias"] + 1
    save_file(state, tmp_path / "other.safetensors")
    return (tmp_path / "other.safetensors").read_bytes()


def user_env(hub, folder, **more):
    """Of a user's shell: another Hub, and a home of its own."""
    left_out = ("HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    env = {key: value for key, value in os.environ.items() if key not in left_out}
    return {**env, "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home"), "CUDA_VISIBLE_DEVICES": "", **more}
