"""`seattn hub pull` and `verify` of a repository: whole and checked, or nothing changes; then without a network."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants

from seattn.cli.main import run
from seattn.core.errors import UserError
from seattn.hub.publishing import publish_folder, pull, verify_repository
from seattn.models.load import load_model
from tests.helpers.hub.faults import Answer, Drop
from tests.helpers.hub.user import NAME, REPO, flipped, other_weights, read, user_env, whole, with_config
from tests.hub.conftest import NOWHERE, TOKEN, use


@pytest.fixture
def offline(monkeypatch):
    def go():
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        use(monkeypatch, NOWHERE)

    return go


def test_what_was_pulled_works_without_a_network(on_hub, staged, offline, capsys):
    assert run(["hub", "pull", REPO]) == 0
    out = capsys.readouterr().out
    assert f'timm.create_model("hf-hub:{REPO}", pretrained=True)' in out
    offline()
    theirs = timm.create_model(f"hf-hub:{REPO}", pretrained=True)
    ours = load_model(str(staged))
    assert all(torch.equal(a, b) for a, b in zip(theirs.state_dict().values(), ours.state_dict().values(), strict=True))
    assert run(["hub", "verify", REPO]) == 0
    assert run(["hub", "pull", REPO]) == 0
    folder = Path(out.splitlines()[0])
    assert read(folder) == read(staged) | {".gitattributes": on_hub.files(REPO)[".gitattributes"]}


def test_a_cache_of_ones_own(on_hub, tmp_path, offline, capsys):
    assert run(["hub", "pull", REPO, "--cache-dir", str(tmp_path / "mine")]) == 0
    assert f'cache_dir="{tmp_path}/mine"' in capsys.readouterr().out
    assert not Path(constants.HF_HUB_CACHE).exists()
    offline()
    timm.create_model(f"hf-hub:{REPO}", pretrained=True, cache_dir=tmp_path / "mine")
    with pytest.raises(UserError, match=rf"{REPO} is not complete in the cache {constants.HF_HUB_CACHE}"):
        load_model(f"hf-hub:{REPO}")


@pytest.mark.parametrize("command", [["hub", "pull"], ["hub", "verify"]])
def test_offline_what_is_not_there_says_how_to_get_it(offline, fails, command):
    offline()
    assert f"HF_HUB_OFFLINE forbids requests to {NOWHERE}; run `seattn hub pull {REPO}`" in fails(*command, REPO)


def test_weights_of_the_package_by_their_name(hub, shipped, offline, without_packaged_file):
    hub.store.put(f"seattn/{NAME}", read(shipped))
    folder = pull("se_resnet20_cifar")
    assert folder == pull(NAME) == pull(f"hf-hub:seattn/{NAME}")
    offline()
    timm.create_model("se_resnet20_cifar", pretrained=True)


def test_other_weights_than_this_versions_are_not_pulled_by_name(hub, tmp_path, staged, fails):
    hub.store.put(f"seattn/{NAME}", {"model.safetensors": other_weights(tmp_path), "config.json": b"{}"})
    line = fails("hub", "pull", NAME)
    assert "model.safetensors is not the file that this version of seattn ships" in line
    assert "or use the version of seattn that has these weights" in line


def test_verify_looks_at_the_hub_not_at_a_folder(on_hub, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["hub", "verify", REPO]) == 0
    assert "golden outputs" in capsys.readouterr().out
    (tmp_path / REPO).mkdir(parents=True)
    assert run(["hub", "verify", REPO]) == 2
    assert "SHA256SUMS" in capsys.readouterr().err
    assert run(["hub", "verify", f"hf-hub:{REPO}"]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: {**files, "model.safetensors": flipped(files["model.safetensors"])}, "SHA-256"),
        (lambda files: {**files, "pytorch_model.bin": b"x"}, "pytorch_model.bin is not listed in SHA256SUMS"),
        (lambda files: {k: v for k, v in files.items() if k != "config.json"}, "config.json is missing"),
        (lambda files: {**files, "SHA256SUMS": b"x"}, "is not a digest"),
        (lambda files: with_config(files, num_classes=4), "config.json is damaged or was changed"),
    ],
    ids=["bit", "pickle", "missing", "sums", "config"],
)
@pytest.mark.parametrize("command", ["pull", "verify"])
def test_a_repository_that_is_not_as_it_was_staged_is_refused(hub, staged, fails, command, change, message):
    hub.store.put(REPO, change(read(staged)))
    assert message in fails("hub", command, REPO)


@pytest.mark.parametrize("path", ["../evil.txt", "a/../../evil.txt", "/evil.txt", "a\\..\\evil.txt"])
def test_paths_that_lead_out_are_not_written(on_hub, fails, path, tmp_path):
    on_hub.store.put(REPO, {path: b"evil"})
    line = fails("hub", "pull", REPO)
    assert REPO in line
    assert not [file for file in tmp_path.rglob("*evil*") if not file.is_relative_to(constants.HF_HUB_CACHE)]


def test_a_pull_that_fails_leaves_the_earlier_one_in_use(on_hub, staged, offline, no_waiting):
    """Also what is online already known to be newer."""
    before = pull(REPO)
    on_hub.store.put(REPO, {**read(staged), "README.md": b"broken"})
    with pytest.raises(UserError, match=r"README.md is damaged"):
        pull(REPO)
    offline()
    assert pull(REPO) == before


def test_a_network_that_goes_away_at_any_request_of_a_pull(on_hub, staged, tmp_path, no_waiting):
    pull(REPO, cache_dir=tmp_path / "first")
    for k in range(len(on_hub.requests)):
        cache, start = tmp_path / str(k), len(on_hub.requests)
        on_hub.fault = lambda r, start=start, k=k: Drop() if r.number >= start + k else None
        with pytest.raises(UserError) as error:
            pull(REPO, cache_dir=cache)
        assert "\n" not in str(error.value)
        assert whole(cache)
        on_hub.fault = lambda r: None
        assert read(staged).items() <= read(pull(REPO, cache_dir=cache)).items()
        if k > 30:
            break


def test_a_revision(on_hub, staged):
    first = on_hub.store.repositories[REPO].refs["main"]
    on_hub.store.put(REPO, {**read(staged), "README.md": b"later"})
    assert read(pull(f"{REPO}@{first}"))["README.md"] == (staged / "README.md").read_bytes()
    with pytest.raises(UserError, match=r"about org/my_birds@nowhere \(404: Invalid rev id: nowhere\)"):
        pull(f"{REPO}@nowhere")


def test_an_empty_or_another_repository_is_said(hub, fails):
    hub.store.create(REPO)
    assert "SHA256SUMS" in fails("hub", "verify", REPO)
    hub.store.put("org/notes", {"notes.txt": b"x"})
    assert "cannot read" in fails("hub", "verify", "org/notes")


def test_a_private_repository_needs_the_login(hub, staged, monkeypatch, fails):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    publish_folder(staged, REPO, private=True)
    pull(REPO)
    monkeypatch.delenv("HF_TOKEN")
    assert f"the request about {REPO} (401: Invalid username or password); the repository is private" in fails(
        "hub", "verify", REPO
    )
    monkeypatch.setenv("HF_TOKEN", "hf_of-somebody-else")
    hub.store.writers["hf_of-somebody-else"] = ["elsewhere"]
    assert f"{hub.url} refuses the request about {REPO} (404: Repository not found); check the name" in fails(
        "hub", "pull", REPO
    )


@pytest.mark.parametrize("name", ["no_such_net", "resnet50", "resnet32_cifar.cifar10"])
def test_a_name_that_is_on_no_hub_is_refused(hub, fails, name):
    fails("hub", "pull", name)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["a/b/c", "org/a b", "org/", "/x", "org/..", "org/x@", "@/x"])
def test_a_name_that_can_be_none_is_refused(hub, fails, name):
    fails("hub", "pull", name)


def test_a_link_to_a_damaged_file_is_found_by_verify(on_hub):
    folder = pull(REPO)
    blob = (folder / "model.safetensors").resolve()
    blob.write_bytes(flipped(blob.read_bytes()))
    with pytest.raises(UserError, match=rf"{blob}, .* is damaged"):
        verify_repository(REPO)


def test_a_cache_without_links_is_checked_by_the_sums(on_hub, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    folder = pull(REPO, cache_dir=tmp_path / "copies")
    assert not (folder / "model.safetensors").is_symlink()
    weights = folder / "model.safetensors"
    weights.write_bytes(flipped(weights.read_bytes()))
    with pytest.raises(UserError, match=r"model.safetensors is damaged or was changed"):
        pull(REPO, cache_dir=tmp_path / "copies")


def test_a_cache_that_cannot_be_written(on_hub, tmp_path, fails):
    (tmp_path / "file").write_text("")
    assert f"cannot write {tmp_path}/file" in fails("hub", "pull", REPO, "--cache-dir", tmp_path / "file")


def test_a_server_that_is_no_hub(hub, fails):
    for answer in (
        Answer(200, {"Content-Type": "text/html"}, b"<html>welcome</html>"),
        Answer(200, {}, []),
        Answer(200, {}, {"id": 7}),
        Answer(302, {"Location": "/login"}, b""),
    ):
        hub.fault = lambda r, answer=answer: answer
        line = fails("hub", "pull", REPO)
        assert hub.url in line
        assert "HF_ENDPOINT" in line


@pytest.fixture
def shell(hub, tmp_path):
    """Run a command as a user does, in a process of its own: HF_ENDPOINT set, nothing of the client patched."""
    printed = []

    def run_command(*args, **more):
        env = user_env(hub, tmp_path, HF_TOKEN=TOKEN, HF_DEBUG="1", **more)
        root = Path(__file__).parents[2]
        done = subprocess.run([sys.executable, *args], env=env, cwd=root, capture_output=True, text=True)
        printed.append(done.stdout + done.stderr)
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield run_command
    assert "authorization" in "".join(printed).lower(), "the client was to log each request"
    assert TOKEN not in "".join(printed)
    files = [file for file in (tmp_path / "home").rglob("*") if file.is_file()]
    assert TOKEN not in "".join(file.read_text(errors="replace") for file in files)


@pytest.mark.slow
def test_all_of_it_in_a_users_shell(hub, shell):
    repo = f"org/{NAME}"
    assert "new" in shell("-m", "seattn", "hub", "publish", NAME, "--org", "org", "--dry-run")
    published = shell("-m", "seattn", "hub", "publish", NAME, "--org", "org", "--private")
    assert f"published as {hub.url}/org/{NAME}" in published
    assert hub.commits(f"org/{NAME}") == ["initial commit", f"{NAME} by seattn {version('seattn')}"]
    assert "no commit" in shell("-m", "seattn", "hub", "publish", NAME, "--org", "org")
    assert "golden outputs" in shell("-m", "seattn", "hub", "verify", repo)
    shell("-m", "seattn", "hub", "pull", repo)
    code = f"import seattn, timm; print(timm.create_model('hf-hub:{repo}', pretrained=True).num_classes)"
    assert shell("-c", code, HF_HUB_OFFLINE="1").strip() == "10"
