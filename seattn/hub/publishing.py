"""Weights on the Hugging Face Hub: publish them, pull them for use without a network, verify what is there.

Only huggingface_hub talks to the Hub; HF_ENDPOINT, HF_TOKEN and its other settings hold. No wait is longer than
`seattn/models/_hub.py` says, and every failure is a UserError of one line.

What publishing a folder changes in a repository of the Hub: compared by size and digest, nothing is downloaded.

One commit on the Hub, made or not made, whatever becomes of its answer.
"""

import io
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status, validate_repo_id
from timm.models import split_model_name_tag

from seattn.core.errors import UserError
from seattn.core.files import sha256
from seattn.hub.staging import packaged_name, stage
from seattn.hub.sums import SUMS, check_sums, files_of
from seattn.hub.verification import Verification, verify
from seattn.models import _pretrained
from seattn.models._hub import (
    LOGIN,
    UnreachableError,
    checked_token,
    fetch_repository,
    git_oid,
    hub_call,
    keep_revision,
)
from seattn.models.listing import our_models
from seattn.models.load import WEIGHTS

NEW, CHANGED, DELETED, SAME, UNKNOWN = "new", "changed", "deleted", "same", "not compared"


@dataclass(frozen=True)
class Remote:
    """A repository at the newest commit of its main branch; `commit` is None where there is no repository."""

    commit: str | None
    private: bool
    files: Mapping[str, RepoFile]


@dataclass(frozen=True)
class Change:
    """What becomes of a file: `state` is one of the words above, `size` in bytes."""

    path: str
    size: int
    state: str


def read_remote(repo: str) -> Remote:
    """What the Hub has of `repo` now.

    Raises:
        UserError: if the Hub does not say; UnreachableError where it cannot be asked.
    """
    if constants.is_offline_mode():
        raise UnreachableError(f"HF_HUB_OFFLINE forbids to ask {constants.ENDPOINT} what it has of {repo}; unset it")
    api = HfApi()
    with hub_call(repo):
        try:
            info = api.model_info(repo)
        except RepositoryNotFoundError:
            return Remote(None, False, {})
        except OSError as error:
            # A repository that is not there is a 401 to whoever is not logged in; over https the client knows that.
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status == 401 and checked_token() is None:
                return Remote(None, False, {})
            raise
        tree = api.list_repo_tree(repo, recursive=True, revision=info.sha)
        files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
        return Remote(str(info.sha), bool(info.private), files)


def compare(folder: Path, remote: Remote | None) -> tuple[Change, ...]:
    """What publishing `folder` does to each file, sorted; with `remote` None, none is compared.

    Files of the repository that begin with a dot are the Hub's own and left alone.
    """
    found = []
    for path in sorted([*files_of(folder), SUMS]):
        state = UNKNOWN if remote is None else _state(folder / path, remote.files.get(path))
        found.append(Change(path, (folder / path).stat().st_size, state))
    ours = {change.path for change in found}
    for path, there in ({} if remote is None else remote.files).items():
        if path not in ours and not any(part.startswith(".") for part in Path(path).parts):
            found.append(Change(path, there.size, DELETED))
    return tuple(sorted(found, key=lambda change: change.path))


def needed(changes: Sequence[Change]) -> list[Change]:
    """Those that a commit is made for."""
    return [change for change in changes if change.state in (NEW, CHANGED, DELETED)]


def _state(path: Path, there: RepoFile | None) -> str:
    if there is None:
        return NEW
    if there.size != path.stat().st_size:
        return CHANGED
    same = sha256(path) == there.lfs.sha256 if there.lfs is not None else git_oid(path) == there.blob_id
    return SAME if same else CHANGED


def commit_changes(folder: Path, repo: str, changes: Sequence[Change], before: Remote, title: str) -> Remote:
    """Make `repo`, which is at `before`, what `folder` is, in one commit; what it is then.

    Raises:
        UserError: if it could not be made, or somebody else made one meanwhile: `repo` is then as it was.
    """
    todo = needed(changes)
    deletions = [CommitOperationDelete(change.path) for change in todo if change.state == DELETED]
    try:
        with hub_call(repo):
            plain = not constants.HF_HUB_DISABLE_XET and not _has_xet(repo)
            additions = [_addition(folder, change, plain) for change in todo if change.state != DELETED]
            HfApi().create_commit(
                repo, [*additions, *deletions], commit_message=title, parent_commit=before.commit, num_threads=1
            )
    except UserError:
        after = _now(repo)  # only the answer may have been lost
        if after is None or needed(compare(folder, after)):
            raise
        return after
    return read_remote(repo)


def _has_xet(repo: str) -> bool:
    """Whether the server takes large files by Xet: huggingface_hub does not ask, and fails where it does not."""
    url = f"{constants.ENDPOINT}/api/models/{repo}/xet-write-token/{constants.DEFAULT_REVISION}"
    response = get_session().get(url, headers=build_hf_headers())
    if response.status_code == 404:
        return False
    hf_raise_for_status(response)
    return True


def _addition(folder: Path, change: Change, plain: bool) -> CommitOperationAdd:
    path = folder / change.path
    return CommitOperationAdd(
        change.path, io.BytesIO(path.read_bytes()) if plain else path
    )  # a stream never goes by Xet


def _now(repo: str) -> Remote | None:
    try:
        return read_remote(repo)
    except UnreachableError:
        return None


_logger = logging.getLogger("seattn")


@dataclass(frozen=True)
class Published:
    """What publishing did, or would do.

    Args:
        repo: `org/name`.
        changes: every file, with what becomes of it.
        commit: the commit that the repository is at; None after a dry run.
        verification: of what was downloaded again; None after a dry run.
    """

    repo: str
    changes: tuple[Change, ...]
    commit: str | None
    verification: Verification | None

    @property
    def url(self) -> str:
        """Of its page."""
        return f"{constants.ENDPOINT}/{self.repo}"

    @property
    def changed(self) -> bool:
        """Whether a commit was made, or would be."""
        return bool(needed(self.changes))


def publish(name: str, org: str, *, run: Path | None = None, private: bool = False, dry_run: bool = False) -> Published:
    """Stage weights, make `org/name` on the Hub that in one commit, download it again and verify it.

    Where nothing differs, no commit is made. A failure leaves the repository at the old commit or at the new one.

    Args:
        name: `arch.tag` of weights in this package; with `run`, what the run's weights are to be called.
        org: user or organisation that the token may write to.
        run: folder of a finished run.
        private: make a repository that is not there yet a private one.
        dry_run: only compare. A Hub that cannot be reached leaves all files "not compared".

    Raises:
        UserError: if there are no such weights, or the Hub cannot be reached or refuses.
    """
    repo = f"{org}/{name if run is not None else packaged_name(name)}"
    _check_before(repo, dry_run)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "stage"
        stage(name, folder, run=run, org=org)
        return publish_folder(folder, repo, private=private, dry_run=dry_run)


def publish_folder(folder: Path, repo: str, *, private: bool = False, dry_run: bool = False) -> Published:
    """`publish` for a folder that `seattn hub stage` wrote."""
    _check_before(repo, dry_run)
    check_sums(folder, ())
    if dry_run:
        return Published(repo, compare(folder, _read_if_reachable(repo)), None, None)
    remote = read_remote(repo)
    if remote.commit is None:
        with hub_call(repo):
            HfApi().create_repo(repo, private=private, exist_ok=True)
        remote = read_remote(repo)
    elif private and not remote.private:
        raise UserError(
            f"{constants.ENDPOINT}/{repo} is public already; --private is for a new repository, its settings change it"
        )
    changes = compare(folder, remote)
    if needed(changes):
        remote = commit_changes(folder, repo, changes, remote, f"{repo.split('/')[1]} by seattn {version('seattn')}")
    return Published(repo, changes, remote.commit, _verify_again(repo, str(remote.commit)))


def pull(name: str, *, cache_dir: Path | None = None) -> Path:
    """Fetch all files of a repository into the cache, checked, so that HF_HUB_OFFLINE=1 can use them; their folder.

    What the cache had before stays in use until all of it is there and whole.

    Args:
        name: `arch` or `arch.tag` of this package's weights, or a repository, `org/name` or `org/name@revision`.
        cache_dir: instead of HF_HUB_CACHE.

    Raises:
        UserError: if it cannot be fetched, is damaged, or is not what this version of seattn has under `name`.
    """
    repo = repository(name)
    folder = fetch_repository(repo, cache_dir=cache_dir)
    if (folder / SUMS).exists():
        check_sums(folder, ())
    if repo != name.removeprefix("hf-hub:"):
        weights = folder / WEIGHTS
        if not weights.is_file():
            raise UserError(f"{constants.ENDPOINT}/{repo} has no {WEIGHTS}; was it made by `seattn hub publish`?")
        remedy = f"delete {weights.resolve()} and pull again; or another version of seattn has it"
        _pretrained.check_pinned(packaged_name(name), weights, remedy)
    if (folder / "config.json").exists():
        keep_revision(repo, cache_dir=cache_dir)
    return folder


def verify_repository(repo: str, *, data_dir: Path | None = None, cache_dir: Path | None = None) -> Verification:
    """`verify_folder` of what the Hub has under `org/name` or `org/name@revision`; offline, of what the cache has."""
    return verify(fetch_repository(repo, cache_dir=cache_dir), data_dir=data_dir)


def repository(name: str) -> str:
    """`org/name` that `name` means: a repository itself, with or without hf-hub:, or weights of this package.

    Raises:
        UserError: if it is neither.
    """
    found = name.removeprefix("hf-hub:")
    if "/" in found:
        return found
    arch, _ = split_model_name_tag(name)
    if arch not in our_models():
        packaged_name(name)  # raises, with the nearest names
    return _pretrained.hub_repository(packaged_name(name))


def _check_before(repo: str, dry_run: bool) -> None:
    """What can be known before anything is staged or asked."""
    with hub_call(repo):
        validate_repo_id(repo)
        token = checked_token()
    if token is None and not dry_run:
        raise UserError(f"publishing needs a token that may write to {repo.split('/')[0]}: {LOGIN}")


def _read_if_reachable(repo: str) -> Remote | None:
    try:
        return read_remote(repo)
    except UnreachableError as error:
        _logger.warning("%s; so nothing is compared", error)
        return None


def _verify_again(repo: str, commit: str) -> Verification:
    with tempfile.TemporaryDirectory() as cache:
        try:
            return verify_repository(f"{repo}@{commit}", cache_dir=Path(cache))
        except UnreachableError as error:
            raise UnreachableError(f"{repo} is published, but could not be downloaded to verify it: {error}") from error
        except UserError as error:
            raise UserError(f"{repo} is published, but what comes back is not what was staged: {error}") from error
