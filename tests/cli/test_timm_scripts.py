"""`seattn timm SCRIPT`, and timm's unmodified scripts end to end where TIMM_SCRIPTS names a checkout of timm."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seattn.__main__ import main
from seattn.cli.timm_scripts import find_script
from seattn.data.samples import load_sample
from seattn.evaluation.scoring import evaluate
from seattn.models.load import load_model

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(os.environ.get("TIMM_SCRIPTS", ""))
RECIPE = ROOT / "zoo_configs" / "se_resnet20_cifar.cifar10.cpu.yaml"
STUB = """
import json, multiprocessing, sys
import timm

def known(queue):
    queue.put(timm.is_model("se_resnet20_cifar"))

if __name__ == "__main__":
    found = {"argv": sys.argv, "path": sys.path[0], "main": timm.is_model("se_resnet20_cifar")}
    queue = multiprocessing.Queue()
    worker = multiprocessing.Process(target=known, args=(queue,))
    worker.start()
    found["worker"] = queue.get(timeout=60)
    worker.join()
    print(json.dumps(found))
    sys.exit(7)
"""


def shell(*args, **variables):
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}", "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run([sys.executable, *map(str, args)], capture_output=True, text=True, timeout=280, env=env)


def test_a_script_sees_our_models_its_own_arguments_and_passes_its_exit_code_on(tmp_path):
    script = tmp_path / "stub.py"
    script.write_text(STUB)
    mine = ["--help", "--model", "x", "--", "-v", "--data-dir=d"]
    result = shell("-m", "seattn", "timm", "stub.py", *mine, TIMM_SCRIPTS=str(tmp_path))
    assert result.returncode == 7, result.stderr
    assert json.loads(result.stdout) == {
        "argv": [str(script), *mine],
        "path": str(tmp_path),
        "main": True,
        "worker": True,
    }


def test_a_script_is_a_path_or_a_name_in_timms_folder(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("")
    assert find_script(str(tmp_path / "a.py")) == tmp_path / "a.py"
    monkeypatch.setenv("TIMM_SCRIPTS", str(tmp_path))
    assert find_script("a.py") == tmp_path / "a.py"


@pytest.mark.parametrize("folder", [None, "checkout"])
def test_a_missing_script_is_one_line_that_says_where_to_get_it(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TIMM_SCRIPTS", raising=False)
    if folder:
        monkeypatch.setenv("TIMM_SCRIPTS", str(tmp_path / folder))
    assert main(["timm", "no_such_script.py", "--help"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("seattn: there is no script no_such_script.py here")
    assert "git clone https://github.com/huggingface/pytorch-image-models" in err
    assert (folder or "is not set to a folder") in err


def test_help_of_the_command_is_its_own(capsys):
    assert main(["timm", "--help"]) == 0
    assert "TIMM_SCRIPTS" in capsys.readouterr().out


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Real images: of each class 16 to train on and 8 to test on."""
    sample, root = load_sample("cifar10"), tmp_path_factory.mktemp("cifar")
    for label, name in enumerate(sample.class_names):
        index = np.flatnonzero(np.asarray(sample.labels) == label)
        for split, chosen in (("train", index[:16]), ("test", index[16:24])):
            (root / split / name).mkdir(parents=True)
            for i in chosen:
                Image.fromarray(sample.images[i]).save(root / split / name / f"{i}.png")
    return root


def validate(images, *args):
    """What timm's validate.py finds on the test split, in per cent."""
    options = ("--data-dir", images, "--split", "test", "--device", "cpu", "--workers", "2", "--batch-size", "32")
    result = shell("-m", "seattn", "timm", SCRIPTS / "validate.py", *args, *options)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.partition("--result")[2])
    return found["top1"], found["top5"]


def percent(evaluation):
    return pytest.approx((100 * evaluation.top1, 100 * evaluation.top5), abs=1e-3)


@pytest.mark.skipif(not SCRIPTS.name, reason="TIMM_SCRIPTS names no checkout of timm with train.py and validate.py")
def test_timms_scripts_train_our_recipe_and_score_what_we_export(images, tmp_path):
    """An epoch each by timm's train.py and by ours from one file; validate.py scores both as `seattn evaluate` does."""
    short = ("--epochs", "1", "--warmup-epochs", "0", "--batch-size", "32", "--workers", "1", "--device", "cpu")
    where = ("--output", tmp_path, "--experiment", "timm")
    result = shell(SCRIPTS / "train.py", "--config", RECIPE, "--data-dir", images, *short, *where)
    assert result.returncode == 0, result.stderr
    checkpoint, arch = tmp_path / "timm" / "last.pth.tar", RECIPE.stem.removesuffix(".cpu")
    ours = evaluate(load_model(arch, checkpoint=checkpoint), images / "test", workers=0)
    assert ours.n == 80
    assert validate(images, "--model", arch, "--checkpoint", checkpoint, "--use-ema") == percent(ours)

    run = tmp_path / "ours"
    changes = ("--epochs", "1", "--set", "warmup_epochs=0", "--set", "batch_size=32", "--set", "seattn.holdout=0.2")
    result = shell("-m", "seattn", "train", RECIPE, "--data-dir", images, "--out", run, "--device", "cpu", *changes)
    assert result.returncode == 0, result.stderr
    ours = evaluate(load_model(str(run)), images / "test", workers=0)
    assert ours.top1 == json.loads((run / "result.json").read_text())["top1"]
    assert validate(images, "--model", f"local-dir:{run}", "--pretrained") == percent(ours)
