"""Weights from the Hub into a net: the order of sources, the pinned checksum, timm's options, hostile repositories."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save

import seattn.models._pretrained as pretrained
from seattn.cli.main import run
from seattn.core.errors import UserError
from seattn.models.load import load_model
from tests.helpers.hub.faults import Alter, Answer, Cut
from tests.helpers.hub.user import NAME, REPO, flipped, other_weights, packaged, read, user_env, whole, with_config

OURS = f"seattn/{NAME}"


@pytest.fixture
def on_hub(hub, without_packaged_file):
    """The weights that ship, on the Hub, and not in the package."""
    config = {
        "architecture": "se_resnet20_cifar",
        "num_classes": 10,
        "pretrained_cfg": {"input_size": [3, 32, 32], "first_conv": "conv1", "classifier": "fc"},
    }
    hub.store.put(OURS, {"model.safetensors": packaged(), "config.json": json.dumps(config).encode()})
    return hub


def load(**kwargs):
    return timm.create_model("se_resnet20_cifar", pretrained=True, **kwargs)


def ours():
    return load_file(pretrained.WEIGHTS / f"{NAME}.safetensors")


def same(model):
    """Whether the model has the shipped weights."""
    return all(torch.equal(value, ours()[key].to(value.dtype)) for key, value in model.state_dict().items())


def test_the_package_comes_first(hub, caplog):
    caplog.set_level(logging.INFO, "seattn")
    load()
    assert hub.requests == []
    assert [r.getMessage() for r in caplog.records] == [
        f"{NAME}: weights from the file {pretrained.WEIGHTS / NAME}.safetensors"
    ]


def test_then_the_hub_said_once_and_the_second_time_nothing_is_downloaded(on_hub, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "seattn")
    assert same(load())
    assert [r.getMessage() for r in caplog.records] == [f"{NAME}: weights from the Hub, {on_hub.url}/{OURS}"]
    asked = len(on_hub.requests)
    assert same(load())
    assert {r.method for r in on_hub.requests[asked:]} == {"HEAD"}
    asked = len(on_hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert same(load())
    assert len(on_hub.requests) == asked


def test_offline_without_it_the_way_out_is_said(on_hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as error:
        load()
    assert str(error.value) == (
        f"{OURS} is not complete in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids requests to "
        f"{on_hub.url}; run `seattn hub pull {OURS}` where there is a network"
    )


def test_a_hub_that_is_down_does_not_matter_to_what_is_cached(on_hub, monkeypatch):
    load()
    for answer in (Answer(500), Answer(429, {"Retry-After": "9999"})):
        on_hub.fault = lambda r, answer=answer: answer
        assert same(load())


def test_timms_options_hold(on_hub, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    model = load(num_classes=3, in_chans=1, cache_dir=elsewhere)
    assert model.fc.weight.shape == (3, 64)
    summed = ours()["conv1.weight"].float().sum(1, keepdim=True).half().float()  # timm keeps the dtype of the file
    torch.testing.assert_close(model.conv1.weight, summed)
    assert torch.equal(model.layer2[0].conv1.weight, ours()["layer2.0.conv1.weight"].float())
    assert list(elsewhere.glob("models--*/snapshots/*/model.safetensors"))
    assert not os.path.exists(constants.HF_HUB_CACHE)
    levels = load(features_only=True, cache_dir=elsewhere)
    assert torch.equal(levels.layer3[0].conv1.weight, ours()["layer3.0.conv1.weight"].float())
    assert [x.shape[1] for x in levels(torch.randn(1, 3, 32, 32))] == [16, 16, 32, 64]


def test_the_model_says_where_its_weights_are_from(on_hub):
    cfg = load().pretrained_cfg
    assert cfg["hf_hub_id"] == OURS
    assert "file" not in cfg
    assert timm.create_model(f"hf-hub:{OURS}", pretrained=True).pretrained_cfg["source"] == "hf-hub"


def test_other_weights_than_the_pinned_are_refused_and_the_way_out_works(on_hub, tmp_path):
    on_hub.store.put(OURS, {"model.safetensors": other_weights(tmp_path)})
    with pytest.raises(UserError) as error:
        load()
    message = str(error.value)
    assert "SHA-256" in message
    assert "use the version of seattn that has it" in message
    on_hub.store.put(OURS, {"model.safetensors": packaged()})
    assert same(load())


def test_a_damaged_file_in_the_cache_is_named_and_once_deleted_fetched_again(on_hub):
    load()
    (link,) = Path(constants.HF_HUB_CACHE).rglob("snapshots/*/model.safetensors")
    blob = link.resolve()
    blob.write_bytes(flipped(blob.read_bytes()))
    with pytest.raises(UserError, match=rf"{blob}, which is model.safetensors in the cache, is damaged.*delete this"):
        load()
    blob.unlink()
    assert same(load())


@pytest.mark.parametrize("cut", [0, 1, 8, 5_000, 300_000, 565_000])
def test_a_download_that_is_cut_is_resumed_where_it_broke_off(on_hub, cut, monkeypatch, no_waiting):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # the client writes, and so resumes, by chunks

    def once(request):
        if request.path.startswith("/cdn/") and request.method == "GET":
            on_hub.fault = lambda r: None
            return Cut(cut)
        return None

    on_hub.fault = once
    assert same(load())
    ranges = [r.headers.get("range") for r in on_hub.requests if r.path.startswith("/cdn/") and r.method == "GET"]
    assert ranges == [None, f"bytes={cut // 1000 * 1000}-" if cut >= 1000 else None]
    assert whole(constants.HF_HUB_CACHE)


def test_a_download_that_is_always_cut_ends_and_leaves_nothing_half(on_hub, no_waiting):
    on_hub.fault = lambda r: Cut(5_000) if r.path.startswith("/cdn/") else None
    with pytest.raises(UserError, match=r"the connection to .* was lost"):
        load()
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.safetensors"))
    assert whole(constants.HF_HUB_CACHE)
    on_hub.fault = lambda r: None
    assert same(load())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda body: flipped(body), "is damaged"),
        (lambda body: flipped(body, 20), "is damaged"),
        (lambda body: body[:-1], "is not as long as the Hub announced"),
        (lambda body: body[:100], "is not as long as the Hub announced"),
        (lambda body: body + b"x", "is not as long as the Hub announced"),
        (lambda body: b"", "is not as long as the Hub announced"),
    ],
    ids=["bit at the end", "bit in the header", "short by one", "short", "long by one", "empty"],
)
def test_weights_that_arrive_altered_are_refused(on_hub, change, message, no_waiting):
    on_hub.fault = lambda r: Alter(change) if r.path.startswith("/cdn/") and r.method == "GET" else None
    with pytest.raises(UserError, match=message):
        load()
    on_hub.fault = lambda r: None
    if "damaged" not in message:
        assert same(load())


@pytest.mark.parametrize(
    "weights", [packaged()[:1000], b"", b"\xff" * 100, flipped(packaged(), 1)], ids=["cut", "empty", "no", "header"]
)
def test_a_repository_with_broken_weights_is_one_line(hub, staged, fails, weights, photo):
    hub.store.put(REPO, {**read(staged), "model.safetensors": weights})
    line = fails("predict", "--model", f"hf-hub:{REPO}", photo)
    assert "is not a whole safetensors file" in line


@pytest.mark.parametrize(
    "changes",
    [
        {"pretrained_cfg__typo": 1},
        {"architecture": "no_such_net"},
        {"architecture": "../../se_resnet20_cifar"},
        {"architecture": ["resnet18"]},
        {"architecture": None},
        {"architecture": "eca_resnet20_cifar"},
        {"model_args": {"no_such_option": 1}},
        {"model_args": {"checkpoint_path": "../../../etc/passwd"}},
        {"model_args": {"pretrained": True}},
        {"model_args": [1]},
        {"pretrained_cfg__custom_load": True, "pretrained_cfg__hf_hub_filename": "x.npz"},
        {"pretrained_cfg__hf_hub_filename": "../../../../etc/passwd"},
        {"pretrained_cfg__hf_hub_filename": "../../other/model.safetensors"},
        {"pretrained_cfg__hf_hub_filename": "pytorch_model.bin"},
        {"num_classes": "many"},
        {"num_classes": 5},
        {"pretrained_cfg": "x" * 1000},
        {"pretrained_cfg__input_size": None},
        {"pretrained_cfg__input_size": [3, 10**6, 10**6]},
        {"pretrained_cfg__std": [0, 0, 0]},
        {"label_names": 5},
        {"num_classes": -1},
    ],
    ids=lambda changes: " ".join(f"{key}={value}" for key, value in changes.items())[:60],
)
def test_a_wrong_or_hostile_config_is_one_line(hub, staged, fails, changes, photo):
    hub.store.put(REPO, with_config(read(staged), **changes))
    line = fails("predict", "--model", f"hf-hub:{REPO}", photo)
    assert REPO in line
    assert len(line) < 700


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"\xff\xfe", b"null", b""], ids=["{", "[]", "no text", "null", "empty"]
)
def test_a_config_that_is_none_is_one_line(hub, staged, fails, content, photo):
    hub.store.put(REPO, {**read(staged), "config.json": content})
    assert REPO in fails("predict", "--model", f"hf-hub:{REPO}", photo)


def test_where_a_config_says_its_weights_are_does_not_matter(hub, staged, tmp_path):
    (tmp_path / "evil.safetensors").write_bytes(save({"fc.weight": torch.zeros(1)}))
    hub.store.put(
        REPO,
        with_config(read(staged), pretrained_cfg__file=str(tmp_path / "evil.safetensors"), pretrained_cfg__url="x"),
    )
    model = load_model(f"hf-hub:{REPO}")
    assert torch.equal(model.fc.weight, load_file(staged / "model.safetensors")["fc.weight"])


def test_a_repository_with_a_pickle_alone_is_refused(hub, staged):
    files = read(staged)
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    hub.store.put(REPO, files)
    with pytest.raises(UserError, match=r"org/my_birds has no such file: .*/model.safetensors"):
        load_model(f"hf-hub:{REPO}")
    assert not [r for r in hub.requests if "pytorch_model" in r.path]


def test_a_cache_that_cannot_be_written_is_named(on_hub, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=rf"cannot write {tmp_path}/file.*give another folder as cache_dir") as error:
        load(cache_dir=tmp_path / "file")
    assert "\n" not in str(error.value)


def test_two_processes_that_fetch_the_same_file_by_the_environment(hub, tmp_path):
    """As a user does, with another organisation and another Hub: nothing of the client is patched there."""
    hub.store.put(f"birds/{NAME}", {"model.safetensors": packaged()})
    code = (
        "import timm, seattn, logging; logging.basicConfig(level=logging.INFO)\n"
        f"timm.models._registry._model_pretrained_cfgs['{NAME}'].file = None\n"
        f"print(float(timm.create_model('{NAME}', pretrained=True).fc.weight.sum()))\n"
    )
    env = user_env(hub, tmp_path, SEATTN_HUB_ORG="birds")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", code], env=env, **pipes) for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        assert float(out) == float(ours()["fc.weight"].float().sum())
        assert err.count(f"weights from the Hub, {hub.url}/birds/{NAME}") == 1
    assert whole(tmp_path / "home")


def test_the_command_line_takes_a_repository(hub, staged, photo, capsys):
    hub.store.put(REPO, read(staged))
    assert run(["predict", "--model", f"hf-hub:{REPO}", str(photo)]) == 0
    assert any(bird in capsys.readouterr().out for bird in ("jay", "rook", "wren"))
