"""`seattn info` tells what is there, shows no secret, and works where torch cannot be imported."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from seattn.__main__ import main
from seattn.cli.installation import report
from seattn.ops import set_kernels


def test_it_tells_what_is_installed_and_used(capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(Path.home() / "somewhere"))
    with set_kernels("reference"):
        assert main(["info", "--json"]) == 0
    out = capsys.readouterr().out
    found = json.loads(out)
    assert found["packages"] | {"torch": version("torch"), "timm": version("timm")} == found["packages"]
    assert found["kernels"] | {"choice": "reference", "on cpu": "reference"} == found["kernels"]
    assert found["extras"]["cli"] == "installed"
    assert "se_resnet20_cifar" in found["nets"]["with weights"]
    assert "thread" in found["commit and devices"]["cpu"]
    assert found["cache folders"]["Triton"] == "~/somewhere (not there)"
    assert found["environment variables"]["HF_TOKEN"] == "set, not shown"
    assert "hf_secret" not in out
    assert str(Path.home()) + "/" not in out


def test_extras_name_what_is_missing_or_too_old(monkeypatch):
    needs = [
        "seattn[cli]; extra == 'search'",
        "optuna<6,>=5; extra == 'search'",
        "nowhere-at-all; extra == 'logs'",
        "pytest>=999; extra == 'test'",
        "windows-only; platform_system == 'Windows' and extra == 'test'",
    ]
    monkeypatch.setattr(report, "requires", lambda name: [need.replace("'", '"') for need in needs])
    monkeypatch.setattr(report, "_version", lambda name: {"optuna": "5.0", "pytest": "9.0"}.get(name, "not installed"))
    found = report._extras()
    assert found["logs"] == "nowhere-at-all is missing"
    assert found["test"] == "pytest is 9.0, >=999 is needed"


def test_a_torch_that_cannot_be_imported_is_a_line_of_the_report(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text('raise ImportError("libcudart.so.99: no such file")')
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    done = subprocess.run([sys.executable, "-m", "seattn", "info"], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"torch: {version('torch')}" in done.stdout
    assert "kernels:\n  error: ImportError: libcudart.so.99: no such file\n" in done.stdout
    assert "Hugging Face: " in done.stdout
