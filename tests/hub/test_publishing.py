"""Publish through the real client: one commit, downloaded again and the same bits; none where nothing differs."""

import json
from importlib.metadata import version

import pytest
import timm
import torch

from seattn.cli.main import run
from seattn.core.errors import UserError
from seattn.hub.publishing import publish_folder
from seattn.hub.sums import render_sums
from tests.helpers.hub.faults import Alter, Cut, Drop
from tests.helpers.hub.user import NAME, REPO, read, with_config
from tests.helpers.runs import write_run
from tests.hub.conftest import NOWHERE, TOKEN, use

PUBLISH = ["hub", "publish", NAME, "--org", "org"]


@pytest.fixture
def altered(folder):
    """A later stage: the card says more, and a file is new."""
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nMore.\n")
    (folder / "notes.txt").write_text("new")
    (folder / "SHA256SUMS").write_text(render_sums(folder))
    return folder


def test_what_is_published_is_what_is_loaded(hub, login, capsys):
    assert run(PUBLISH) == 0
    repo = f"org/{NAME}"
    out = capsys.readouterr().out
    assert f"published as {hub.url}/{repo}" in out
    assert "golden outputs" in out
    assert hub.commits(repo) == ["initial commit", f"{NAME} by seattn {version('seattn')}"]
    theirs = timm.create_model(f"hf-hub:{repo}", pretrained=True).eval()
    ours = timm.create_model(NAME, pretrained=True).eval()
    x = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(theirs(x), ours(x))
    assert theirs.pretrained_cfg["label_names"] == list(ours.pretrained_cfg["label_names"])


def test_a_second_time_there_is_no_commit(hub, login, staged):
    first = publish_folder(staged, REPO)
    assert first.changed
    asked = len(hub.requests)
    second = publish_folder(staged, REPO)
    assert not second.changed
    assert second.commit == first.commit
    assert {change.state for change in second.changes} == {"same"}
    assert [str(r) for r in hub.requests[asked:] if r.method not in ("GET", "HEAD")] == []
    assert second.verification.checks == first.verification.checks


def test_only_what_differs_is_sent_and_what_is_gone_is_deleted(hub, login, staged, altered):
    publish_folder(altered, REPO)
    found = publish_folder(staged, REPO)
    states = {change.path: change.state for change in found.changes}
    assert states.pop("README.md") == states.pop("SHA256SUMS") == "changed"
    assert states.pop("notes.txt") == "deleted"
    assert set(states.values()) == {"same"}
    (commit,) = [r for r in hub.requests if "/commit/" in r.path][1:]
    assert {json.loads(line)["key"] for line in commit.body.splitlines()} == {"header", "file", "deletedFile"}
    assert read(staged).items() <= hub.files(REPO).items()
    assert ".gitattributes" in hub.files(REPO)  # the Hub's own
    assert "notes.txt" not in hub.files(REPO)


def test_a_run_is_published_under_its_name(hub, login, tmp_path, capsys):
    write_run(tmp_path / "run", ("jay", "rook"))
    assert run(["hub", "publish", str(tmp_path / "run"), "--name", "two_birds", "--org", "org", "--private"]) == 0
    assert hub.store.repositories["org/two_birds"].private
    assert "2 classes" in capsys.readouterr().out
    card = hub.files("org/two_birds")["README.md"].decode()
    assert 'timm.create_model("hf-hub:org/two_birds", pretrained=True)' in card
    assert "ORG" not in card


def test_a_dry_run_shows_all_files_and_writes_nothing(hub, shipped, capsys):
    assert run([*PUBLISH, "--dry-run"]) == 0
    out = capsys.readouterr().out
    for file in read(shipped):
        assert any(file[:30] in line and "new" in line and any(map(str.isdigit, line)) for line in out.splitlines()), (
            out
        )
    assert "dry run: nothing was written" in out
    assert hub.store.repositories == {}
    assert {r.method for r in hub.requests} == {"GET"}


def test_a_dry_run_says_what_differs(hub, login, staged, altered):
    publish_folder(staged, REPO)
    before = hub.commits(REPO)
    states = {change.path: change.state for change in publish_folder(altered, REPO, dry_run=True).changes}
    assert states["README.md"] == "changed"
    assert states["notes.txt"] == "new"
    assert states["model.safetensors"] == "same"
    assert publish_folder(altered, REPO, dry_run=True).commit is None
    assert hub.commits(REPO) == before


def test_a_dry_run_without_a_network_still_lists_all(monkeypatch, no_waiting, capsys):
    use(monkeypatch, NOWHERE)
    assert run([*PUBLISH, "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert "model.safetensors" in out
    assert "not compared" in out
    assert f"cannot reach {NOWHERE}" in err.splitlines()[-1]


def test_a_public_repository_is_not_made_private_in_passing(hub, login, staged):
    publish_folder(staged, REPO)
    with pytest.raises(UserError, match=r"org/my_birds is public; --private is for a new repository"):
        publish_folder(staged, REPO, private=True)


def test_a_folder_that_was_altered_is_not_published(hub, login, altered):
    (altered / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config.json is damaged or was changed"):
        publish_folder(altered, REPO)
    assert hub.requests == []


def test_without_a_token_nothing_is_asked(hub, fails):
    line = fails(*PUBLISH)
    assert "publishing needs a token that may write to org: log in with `hf auth login`, or set HF_TOKEN" in line
    assert hub.requests == []


def test_what_comes_back_otherwise_is_said(hub, login, staged):
    publish_folder(staged, REPO)
    bad = with_config(read(staged), num_features=65)

    def swap(request):
        """Somebody's mirror serves another config.json."""
        if request.method == "GET" and request.path.endswith("/config.json"):
            return Alter(lambda body: bad["config.json"])
        return None

    hub.fault = swap
    with pytest.raises(UserError, match=r"org/my_birds is published, but the downloaded files differ from the stage"):
        publish_folder(staged, REPO)


def test_somebody_elses_commit_meanwhile_is_not_overwritten(hub, login, staged, altered):
    publish_folder(staged, REPO)

    def meanwhile(request):
        if request.path.endswith("/commit/main"):
            hub.fault = lambda r: None
            hub.store.put(REPO, {"theirs.txt": b"theirs"})

    hub.fault = meanwhile
    with pytest.raises(UserError, match=r"the request about org/my_birds \(412: .* another commit was made meanwhile"):
        publish_folder(altered, REPO)
    assert set(hub.files(REPO)) == {".gitattributes", "theirs.txt"}


def requests_of(hub, action, *args):
    """All requests up to the commit, and three of the download after it, by their place."""
    start = len(hub.requests)
    action(*args)
    paths = [r.path for r in hub.requests[start:]]
    commit = next(k for k, path in enumerate(paths) if "/commit/" in path)
    return [*range(commit + 1), commit + 1, (commit + len(paths)) // 2, len(paths) - 1]


@pytest.mark.parametrize("after", [False, True], ids=["request lost", "answer lost"])
def test_a_network_that_goes_away_at_any_request_leaves_the_old_or_the_new(
    hub, login, staged, altered, no_waiting, after
):
    hub.store.put("org/first", read(staged))
    old = hub.files("org/first")
    places = requests_of(hub, publish_folder, altered, "org/first")
    assert len(places) == 10
    new = hub.files("org/first")
    seen = []
    for k in places:
        repo = f"org/birds{k}"
        hub.store.put(repo, read(staged))
        hub.store.large.clear()
        start = len(hub.requests)
        hub.fault = lambda r, start=start, k=k: Drop(after) if r.number >= start + k else None
        with pytest.raises(UserError) as error:
            publish_folder(altered, repo)
        assert "\n" not in str(error.value)
        assert hub.url in str(error.value)
        files = hub.files(repo)
        assert files in (old, new), f"between, after request {k}"
        seen.append(files == new)
        hub.fault = lambda r: None
        assert publish_folder(altered, repo).changed != (files == new)
        assert hub.files(repo) == new
        assert len(hub.commits(repo)) == 3, "one commit, not two"
    assert sorted(seen) == seen, "the new one stays"
    assert set(seen) == {False, True}


def test_one_lost_answer_is_made_up_for_or_said(hub, login, staged, no_waiting):
    """The client tries some requests again; that a commit was made whose answer is lost is found by looking."""
    places = requests_of(hub, publish_folder, staged, "org/first")
    messages = []
    for k in places:
        start, repo = len(hub.requests), f"org/new{k}"
        hub.store.large.clear()
        hub.fault = lambda r, start=start, k=k: Drop(after=True) if r.number == start + k else None
        try:
            publish_folder(staged, repo)
        except UserError as error:
            messages.append(str(error))
            publish_folder(staged, repo)
        assert len(hub.commits(repo)) == 2
        assert read(staged).items() <= hub.files(repo).items()
    assert 0 < len(messages) < len(places)
    assert all(f"the connection to {hub.url} was lost" in line for line in messages)


def test_the_answer_to_the_commit_cut_in_the_middle(hub, login, staged, no_waiting):
    hub.fault = lambda r: Cut(5) if r.path.endswith("/commit/main") else None
    assert publish_folder(staged, REPO).changed
    assert len(hub.commits(REPO)) == 2


def test_the_token_goes_to_the_hub_alone(hub, login, staged):
    """Large files are redirected to another host, which asserts that it is sent none."""
    publish_folder(staged, REPO)
    sent = {r.path.split("/")[1] for r in hub.requests if TOKEN in r.headers.get("authorization", "")}
    assert "cdn" in {r.path.split("/")[1] for r in hub.requests}
    assert "cdn" not in sent
    assert "api" in sent


@pytest.mark.parametrize("name", ["no_such_net", "resnet32_cifar"])
def test_a_name_without_weights_is_refused(hub, login, fails, name):
    fails("hub", "publish", name, "--org", "org")
    assert hub.requests == []


@pytest.mark.parametrize("org", ["../x", "a b", "x/y", ""])
def test_an_organisation_that_can_be_none_is_refused(hub, login, fails, org):
    assert "is not the name of a repository" in fails("hub", "publish", NAME, "--org", org)
    assert [r for r in hub.requests if r.method != "GET"] == []
