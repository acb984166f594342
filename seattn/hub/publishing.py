"""Weights on the Hugging Face Hub: publish them, pull them for use without a network, verify a repository.

Only huggingface_hub sends requests to the Hub, so HF_ENDPOINT, HF_TOKEN and its other settings apply.
"""

import io
import logging
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import validate_repo_id
from timm.models import split_model_name_tag

from seattn.core.errors import UserError
from seattn.hub.staging import packaged_name, stage
from seattn.hub.sums import SUMS, check_sums, files_of, is_hidden
from seattn.hub.verification import Verification, verify
from seattn.models import _pretrained
from seattn.models._hub import LOGIN, UnreachableError, check_cached, checked_token, hub_call, split_revision
from seattn.models.listing import our_models
from seattn.models.load import WEIGHTS

_logger = logging.getLogger("seattn")


@dataclass(frozen=True)
class Change:
    """What publishing does to a file.

    Args:
        path: relative to the repository.
        size: in bytes; None for a file that is deleted.
        state: "new", "changed", "deleted", "same" or "not compared".
    """

    path: str
    size: int | None
    state: str


@dataclass(frozen=True)
class Published:
    """What publishing did, or would do.

    Args:
        repo: `org/name`.
        changes: all files, each with its change.
        commit: the newest commit of the repository after publishing; None after a dry run.
        verification: the checks of the files after they were downloaded again; None after a dry run.
    """

    repo: str
    changes: tuple[Change, ...]
    commit: str | None = None
    verification: Verification | None = None

    @property
    def url(self) -> str:
        """The page of the repository."""
        return f"{constants.ENDPOINT}/{self.repo}"

    @property
    def changed(self) -> bool:
        """Whether a commit was made, or would be."""
        return bool(_changed(self.changes))


def publish(name: str, org: str, *, run: Path | None = None, private: bool = False, dry_run: bool = False) -> Published:
    """Stage weights, make `org/name` on the Hub equal to the stage in one commit, download it again and verify it.

    If nothing differs, no commit is made. A failure leaves the repository at the old commit or at the new one.

    Args:
        name: `arch.tag` of weights in this package; with `run`, the name that the run's weights get.
        org: user or organisation that the token may write to.
        run: folder of a finished run.
        private: make the repository private if it does not exist yet.
        dry_run: only compare. If the Hub cannot be reached, all files are "not compared".

    Raises:
        UserError: if there are no such weights, or the Hub cannot be reached or refuses.
    """
    repo = f"{org}/{name if run is not None else packaged_name(name)}"
    _check_repository(repo, needs_token=not dry_run)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "stage"
        stage(name, folder, run=run, org=org)
        return publish_folder(folder, repo, private=private, dry_run=dry_run)


def publish_folder(folder: Path, repo: str, *, private: bool = False, dry_run: bool = False) -> Published:
    """`publish` for a folder that `stage` wrote, as `org/name`."""
    _check_repository(repo, needs_token=not dry_run)
    check_sums(folder)
    try:
        info = _model_info(repo)
    except UnreachableError as error:
        if not dry_run:
            raise
        _logger.warning("%s; the files are not compared", error)
        return Published(repo, _changes(folder, "not compared"))
    changes = _changes(folder, "new") if info is None else compare(folder, repo, str(info.sha))
    if dry_run:
        return Published(repo, changes)
    if private and info is not None and not info.private:
        raise UserError(
            f"{constants.ENDPOINT}/{repo} is public; --private is for a new repository: change it on its settings page"
        )
    if info is None:
        with hub_call(repo):
            HfApi().create_repo(repo, private=private, exist_ok=True)
    commit = _commit(folder, repo, changes, None if info is None else info.sha)
    return Published(repo, changes, commit, _verify_again(repo, commit))


def compare(folder: Path, repo: str, commit: str) -> tuple[Change, ...]:
    """What publishing `folder` changes in `repo` at `commit`, by sizes and digests: nothing is downloaded.

    Files of the repository that begin with a dot belong to the Hub and are left alone.
    """
    with hub_call(repo):
        found = HfApi().verify_repo_checksums(repo, local_dir=folder, revision=commit)
    states = dict.fromkeys(found.extra_paths, "new") | {file["path"]: "changed" for file in found.mismatches}
    deleted = [Change(path, None, "deleted") for path in found.missing_paths if not is_hidden(Path(path))]
    return tuple(sorted([*_changes(folder, "same", states), *deleted], key=lambda change: change.path))


def pull(name: str, *, cache_dir: Path | None = None) -> Path:
    """Download all files of a repository into the cache and check them, for use with HF_HUB_OFFLINE=1.

    The older files in the cache stay in use until all new files are there and whole.

    Args:
        name: `arch` or `arch.tag` of this package's weights, or a repository, `org/name` or `org/name@revision`.
        cache_dir: instead of HF_HUB_CACHE.

    Returns:
        The folder of the files.

    Raises:
        UserError: if the files cannot be downloaded, are damaged, or are not the weights that this version of seattn
            has as `name`.
    """
    repo = repository(name)
    folder = _download(repo, cache_dir)
    if (folder / SUMS).exists():
        check_sums(folder)
    if repo != name.removeprefix("hf-hub:"):
        weights = folder / WEIGHTS
        if not weights.is_file():
            raise UserError(f"{constants.ENDPOINT}/{repo} has no {WEIGHTS}; was it made by `seattn hub publish`?")
        remedy = f"delete {weights.resolve()} and pull again, or use the version of seattn that has these weights"
        _pretrained.check_pinned(packaged_name(name), weights, remedy)
    org_and_name, revision = split_revision(repo)
    with hub_call(repo, cache_dir=cache_dir):  # now the cache may call this commit the newest one of the branch
        snapshot_download(org_and_name, revision=revision, cache_dir=cache_dir)
    return folder


def verify_repository(repo: str, *, data_dir: Path | None = None, cache_dir: Path | None = None) -> Verification:
    """`verify` the files of `org/name` or `org/name@revision` on the Hub; with HF_HUB_OFFLINE=1, those in the cache."""
    return verify(_download(repo, cache_dir), data_dir=data_dir)


def repository(name: str) -> str:
    """The `org/name` of `name`, which is a repository, with or without hf-hub:, or weights of this package.

    Raises:
        UserError: if it is neither.
    """
    without_prefix = name.removeprefix("hf-hub:")
    if "/" in without_prefix:
        return without_prefix
    arch, _ = split_model_name_tag(name)
    if arch not in our_models():
        packaged_name(name)  # raises, with the nearest names
    return _pretrained.hub_repository(packaged_name(name))


def _check_repository(repo: str, *, needs_token: bool) -> None:
    """Check the name and the token before anything is staged or sent."""
    with hub_call(repo):
        validate_repo_id(repo)
        token = checked_token()
    if token is None and needs_token:
        raise UserError(f"publishing needs a token that may write to {repo.split('/')[0]}: {LOGIN}")


def _model_info(repo: str) -> ModelInfo | None:
    """The Hub's description of `repo`; None if there is no such repository."""
    if constants.is_offline_mode():
        raise UnreachableError(f"HF_HUB_OFFLINE forbids requests to {constants.ENDPOINT} about {repo}; unset it")
    with hub_call(repo):
        try:
            return HfApi().model_info(repo)
        except RepositoryNotFoundError:
            return None


def _changes(folder: Path, state: str, states: dict[str, str] | None = None) -> tuple[Change, ...]:
    """All files of `folder`, with their state in `states` or else `state`."""
    return tuple(
        Change(path, (folder / path).stat().st_size, (states or {}).get(path, state))
        for path in sorted([*files_of(folder), SUMS])
    )


def _changed(changes: Iterable[Change]) -> list[Change]:
    return [change for change in changes if change.state in ("new", "changed", "deleted")]


def _commit(folder: Path, repo: str, changes: tuple[Change, ...], parent: str | None) -> str:
    """Make `changes` in one commit after `parent`, if there are any; returns the newest commit of the repository."""
    if not _changed(changes):
        return str(parent)
    # Bytes are sent by HTTP, which every server accepts and whose waits are bounded; a path would be sent by Xet.
    operations = [
        CommitOperationDelete(change.path)
        if change.state == "deleted"
        else CommitOperationAdd(change.path, io.BytesIO((folder / change.path).read_bytes()))
        for change in _changed(changes)
    ]
    title = f"{repo.split('/')[1]} by seattn {version('seattn')}"
    try:
        with hub_call(repo):
            return str(HfApi().create_commit(repo, operations, commit_message=title, parent_commit=parent).oid)
    except UserError:
        with suppress(UserError):  # perhaps the commit was made and only the answer was lost
            info = _model_info(repo)
            if info is not None and not _changed(compare(folder, repo, str(info.sha))):
                return str(info.sha)
        raise


def _download(repo: str, cache_dir: Path | None) -> Path:
    """The folder, in the cache, of all files of `repo` at one commit.

    The cache keeps its own entry for the newest commit of the branch. With HF_HUB_OFFLINE=1 the folder is of that
    commit.

    Raises:
        UserError: if a file cannot be downloaded, or is damaged in the cache.
    """
    name, revision = split_revision(repo)
    with hub_call(repo, cache_dir=cache_dir):
        if not constants.is_offline_mode():
            revision = HfApi().model_info(name, revision=revision).sha
        folder = Path(snapshot_download(name, revision=revision, cache_dir=cache_dir))
    for path in folder.rglob("*"):
        check_cached(path)
    return folder


def _verify_again(repo: str, commit: str) -> Verification:
    with tempfile.TemporaryDirectory() as cache:
        try:
            return verify_repository(f"{repo}@{commit}", cache_dir=Path(cache))
        except UnreachableError as error:
            raise UnreachableError(f"{repo} is published, but could not be downloaded to verify it: {error}") from error
        except UserError as error:
            raise UserError(f"{repo} is published, but the downloaded files differ from the stage: {error}") from error
