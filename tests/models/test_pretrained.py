import logging
import os
import shutil
import subprocess
import sys

import pytest
import timm
import torch
from timm.models import generate_default_cfgs

import seattn.models._pretrained as pretrained
from seattn.core.errors import UserError
from seattn.models import resnet_attn
from seattn.models.listing import our_models
from seattn.models.load import load_model, model_temperature

NAME = "se_resnet20_cifar.cifar10"


def test_loads_the_packaged_file_and_says_so(caplog):
    caplog.set_level(logging.INFO, "seattn")
    model = timm.create_model("se_resnet20_cifar", pretrained=True)
    assert f"{NAME}: weights from the file" in caplog.text
    assert f"{NAME}.safetensors" in caplog.text
    assert sum(p.numel() for p in model.parameters()) == 274_847


def test_works_offline_in_a_fresh_process():
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9", "CUDA_VISIBLE_DEVICES": ""}
    code = "import timm, seattn; print(type(timm.create_model('se_resnet20_cifar', pretrained=True)).__name__)"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "ThreeStageResNetCifar", done.stderr


def test_packaged_files_are_the_recorded_ones():
    index = pretrained.weight_index()
    assert NAME in index
    for name, entry in index.items():
        path = pretrained.WEIGHTS / entry["file"]
        assert pretrained.sha256(path) == entry["sha256"], name
    shipped = {path.name for path in pretrained.WEIGHTS.iterdir() if path.suffix == ".safetensors"}
    assert shipped == {entry["file"] for entry in index.values()}


def test_timm_lists_what_has_weights():
    ours = {cfg for name in our_models() for cfg in timm.models.get_arch_pretrained_cfgs(name)}
    assert sorted(ours & set(timm.list_pretrained())) == pretrained.models_with_weights()


def test_weights_for_butterflies_leave_a_net_of_a_thousand_classes_one(monkeypatch):
    monkeypatch.setattr(resnet_attn, "weight_source", lambda name: {"url": "x"} if "butterfly" in name else {})
    cfgs = generate_default_cfgs(resnet_attn._cfgs("se_resnet18"))["se_resnet18"]
    assert (cfgs.default.num_classes, cfgs.default_with_tag[0], cfgs.is_pretrained) == (1000, "", True)


@pytest.mark.parametrize("name", ["resnet32_cifar", "se_resnet56_cifar.cifar100"])
def test_a_model_without_weights_says_so_and_lists_those_that_have(name):
    with pytest.raises(UserError, match=rf"{name}.*no pretrained weights yet; those that have: .*{NAME}"):
        timm.create_model(name, pretrained=True)


@pytest.fixture
def altered(tmp_path, monkeypatch):
    """The packaged weights in a copy that a test may alter."""
    copy = tmp_path / "weights"
    shutil.copytree(pretrained.WEIGHTS, copy)
    monkeypatch.setattr(pretrained, "WEIGHTS", copy)
    return copy / f"{NAME}.safetensors"


@pytest.mark.parametrize("damage", ["truncated", "one_byte"])
def test_an_altered_file_is_refused_by_name(altered, damage):
    data = bytearray(altered.read_bytes())
    if damage == "truncated":
        data = data[:1000]
    else:
        data[-1] ^= 1
    altered.write_bytes(data)
    with pytest.raises(UserError, match=rf"{altered}.*SHA-256.*expected.*reinstall"):
        timm.create_model("se_resnet20_cifar", pretrained=True, pretrained_cfg_overlay={"file": str(altered)})


def test_without_the_packaged_file_the_hub_is_next(altered):
    assert pretrained.weight_source(NAME)["file"] == str(altered)
    altered.unlink()
    assert pretrained.weight_source(NAME) == {"hf_hub_id": f"seattn/{NAME}"}
    assert pretrained.weight_source("resnet32_cifar.cifar10") == {}


def test_a_file_of_the_users_own_is_loaded(tmp_path):
    from safetensors.torch import save_file

    model = timm.create_model("resnet20_cifar")
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    again = timm.create_model(
        "resnet20_cifar", pretrained=True, pretrained_cfg_overlay={"file": str(tmp_path / "mine.safetensors")}
    )
    assert torch.equal(again.fc.weight, model.fc.weight)


def test_other_classes_and_channels_keep_the_trained_trunk():
    full = timm.create_model("se_resnet20_cifar", pretrained=True)
    fewer = timm.create_model("se_resnet20_cifar", pretrained=True, num_classes=3)
    assert fewer.fc.weight.shape == (3, 64)
    assert torch.equal(fewer.layer3[2].conv2.weight, full.layer3[2].conv2.weight)
    gray = timm.create_model("se_resnet20_cifar", pretrained=True, in_chans=1)
    summed = full.conv1.weight.sum(1, keepdim=True).half().float()  # timm rounds the sum to the dtype of the file
    torch.testing.assert_close(gray.conv1.weight, summed)
    levels = timm.create_model("se_resnet20_cifar", pretrained=True, features_only=True)
    assert torch.equal(levels.conv1.weight, full.conv1.weight)


def test_weights_of_the_package_have_their_temperature_and_unscaled_logits(monkeypatch):
    index = pretrained.weight_index()
    fitted = {name: entry["temperature"] for name, entry in index.items() if "temperature" in entry}
    assert fitted
    for name, temperature in fitted.items():
        model = load_model(name)
        assert model_temperature(model) == temperature
        x = torch.randn(2, *model.pretrained_cfg["input_size"])
        assert torch.equal(model(x), timm.create_model(name, pretrained=True).eval()(x))
    name = "se_resnet18_cifar.cifar10"  # which the name without a tag means; these weights have no temperature
    assert model_temperature(load_model("se_resnet18_cifar")) == 1
    monkeypatch.setitem(index[name], "temperature", 0.75)
    assert model_temperature(load_model(name)) == model_temperature(load_model("se_resnet18_cifar")) == 0.75
    weights = pretrained.WEIGHTS / index[name]["file"]
    assert model_temperature(load_model(name, checkpoint=weights)) == 1
    assert model_temperature(load_model(name, pretrained=False)) == 1
