"""Weights on the Hugging Face Hub: publish them, pull them for use without a network, verify what is there.

Only huggingface_hub talks to the Hub; HF_ENDPOINT, HF_TOKEN and its other settings hold. No wait is longer than
`seattn/_hub_net_patience.py` says, and every failure is a UserError of one line.
"""

import logging
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import HfApi, constants
from huggingface_hub.utils import validate_repo_id
from timm.models import split_model_name_tag

from seattn._hub_net_cache import fetch_repository, keep_revision
from seattn._hub_net_patience import UnreachableError
from seattn._hub_net_plan import Change, Remote, compare, needed, read_remote
from seattn._hub_net_upload import commit_changes
from seattn.core.errors import UserError
from seattn.hub.staging import packaged_name, stage
from seattn.hub.sums import SUMS, check_sums
from seattn.hub.verification import Verification, verify
from seattn.models import _pretrained
from seattn.models._hub import LOGIN, checked_token, hub_call
from seattn.models.load import WEIGHTS, our_models

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
