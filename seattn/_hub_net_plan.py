"""What publishing a folder changes in a repository of the Hub: compared by size and digest, nothing is downloaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile

from seattn._hub_net_cache import git_oid
from seattn._hub_net_patience import UnreachableError
from seattn.core.files import sha256
from seattn.hub.sums import SUMS, files_of
from seattn.models._hub import checked_token, hub_call

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
