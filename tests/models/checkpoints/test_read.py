"""Nothing here unpickles: the source is searched, and each way in is given a pickle that would make a folder."""

import ast
import os
import pickle
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

import seattn
from seattn.core.errors import UserError
from seattn.models.load import load_model
from tests.helpers.colours import write_colours
from tests.helpers.runs import write_run

ROOT = Path(__file__).parents[3]
SOURCES = [
    *Path(seattn.__file__).parent.rglob("*.py"),
    *(ROOT / "kernels").rglob("*.py"),
    *(ROOT / "benchmarks").rglob("*.py"),
]
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle"}
READERS = {"loads", "Unpickler", "read_pickle", "unsafe_load", "full_load", "load_all"}
ARCH = "se_resnet20_cifar"


def unpickles(source):
    """Where `source` reads pickles or could: (line, code)."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").split(".")[0]]
            names += [f"torch.{alias.name}" for alias in node.names if node.module == "torch" and alias.name == "load"]
        elif isinstance(node, ast.Call):
            called, given = (
                ast.unparse(node.func),
                {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords},
            )
            unsafe = (
                (called.endswith("torch.load") and given.get("weights_only") != "True")
                or ("weights_only" in given and given["weights_only"] != "True")
                or given.get("allow_pickle", "False") != "False"
                or called
                in ("yaml.load", "eval", "exec", "torch.jit.load", "torch.hub.load", "timm.models.load_pretrained")
                or (called.split(".")[-1] in READERS and called != "json.loads")
            )
            found += [(node.lineno, ast.unparse(node))] if unsafe else []
        found += [(node.lineno, name) for name in names if name in MODULES or name == "torch.load"]
    return found


def test_no_source_reads_pickles():
    # An export checks the file that it has just written; `predict --runtime` refuses files of this format.
    allowed = {ROOT / "seattn" / "deploy" / "runtime.py": ["torch.jit.load(str(path))"]}
    for path in SOURCES:
        found = [code for _, code in unpickles(path.read_text(encoding="utf-8"))]
        assert found == allowed.get(path, []), path


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "import joblib as j",
        "from pickle import load",
        "from torch import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=safe)",
        "np.load(path, allow_pickle=True)",
        "load_state_dict(path, weights_only=False)",
        "yaml.load(text)",
        "pd.read_pickle(path)",
        "marshal.loads(x)",
    ],
)
def test_the_search_finds(code):
    assert unpickles(code)


class Intruder:
    """What an attacker would put into a pickle."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def script(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)


def exported(path):
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),)), path)


def tar(path):
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("sys_info"))


def cut(path):
    torch.save({"a": torch.ones(999)}, path)
    path.write_bytes(path.read_bytes()[:-100])


def npz(path):
    with path.open("wb") as file:
        np.savez(file, a=np.ones(2))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (script, "is a TorchScript program, not a checkpoint; save the state dict"),
        (exported, "is a program of torch.export, not a checkpoint; save the state dict"),
        (tar, "is an archive in torch's format from before 2018; save it again"),
        (cut, "is damaged: its end is missing or altered; get it again"),
        (npz, "is a zip archive with a.npy and no weights"),
        (
            lambda path: save_file({"a": torch.ones(2)}, path),
            "is a safetensors file by its content; give it the suffix",
        ),
        (lambda path: path.write_text("<html>\nNot found"), "is a text that begins with '<html>', not a checkpoint"),
        (lambda path: path.write_bytes(b""), "is empty; get it again"),
        (
            lambda path: torch.save(torch.nn.Linear(2, 2), path),
            "holds other objects than weights, which are never unpickled",
        ),
    ],
    ids=["script", "export", "tar", "cut", "npz", "safetensors", "html", "empty", "net"],
)
def test_a_file_without_weights_is_called_what_it_is_and_torchs_advice_is_not_passed_on(tmp_path, write, message):
    path = tmp_path / "x.pth"
    write(path)
    with pytest.raises(UserError, match=f"^{path} [^\n]*{message}") as error:
        load_model(ARCH, checkpoint=path)
    assert "weights_only" not in str(error.value)


@pytest.fixture
def pwned(tmp_path):
    """The folder that must not come to be."""
    return tmp_path / "pwned"


def zipped(path, intruder):
    torch.save({"epoch": 0, "state_dict": intruder, "args": intruder}, path)


def legacy(path, intruder):
    torch.save({"state_dict": {"fc.weight": intruder}}, path, _use_new_zipfile_serialization=False)


def plain(path, intruder):
    path.write_bytes(pickle.dumps(intruder))


def within(path, intruder):
    """Behind weights that would do."""
    torch.save({"state_dict": timm.create_model(ARCH).state_dict(), "optimizer": intruder}, path)


@pytest.mark.parametrize("write", [zipped, legacy, plain, within])
@pytest.mark.parametrize("suffix", [".pth.tar", ".safetensors", ".npz"])
def test_a_pickle_is_refused_in_one_line(tmp_path, pwned, fails, write, suffix):
    path = tmp_path / f"evil{suffix}"
    write(path, Intruder(pwned))
    images = write_colours(tmp_path / "data", {"jay": 0, "rook": 1}, {"test": [1, 1]})
    for arguments in (
        ("import", path, tmp_path / "out", "--model", ARCH),
        ("evaluate", ARCH, "--checkpoint", path, "--data-dir", images),
        ("predict", images / "test" / "jay" / "0.png", "--checkpoint", path),
    ):
        assert path.name in fails(*arguments)
    with pytest.raises(UserError, match=f"evil{suffix}"):
        load_model(ARCH, checkpoint=path)
    assert not pwned.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["last.pth.tar", "model_best.pth.tar"])
def test_a_run_whose_checkpoint_was_exchanged_is_refused(tmp_path, pwned, fails, name):
    folder = write_run(tmp_path / "run", ("jay", "rook"), {"seattn": {"early_stop": 3}})
    within(folder / name, Intruder(pwned))
    assert "never unpickled" in fails("import", folder, tmp_path / "out")
    assert not pwned.exists()


def test_resuming_from_a_pickle_is_refused(tmp_path, pwned, fails):
    data = write_colours(tmp_path / "data", {"jay": 0, "rook": 1}, {"train": [8, 8], "test": [1, 1]})
    recipe = {"epochs": 2, "batch_size": 4, "workers": 0}
    folder = write_run(tmp_path / "run", ("jay", "rook"), recipe)
    (folder / "result.json").unlink()
    within(folder / "last.pth.tar", Intruder(pwned))
    line = fails("train", folder / "recipe.yaml", "--data-dir", data, "--out", folder, "--resume")
    assert "cannot resume from" in line
    assert not pwned.exists()


def test_the_shortest_way_out_of_a_pickle_is_real(tmp_path, pwned):
    path = tmp_path / "evil.pth"
    zipped(path, Intruder(pwned))
    torch.load(path, weights_only=False)  # else the tests above hold nothing
    assert pwned.exists()
