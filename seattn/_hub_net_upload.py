"""One commit on the Hub, made or not made, whatever becomes of its answer."""

import io
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from seattn._hub_net_patience import UnreachableError
from seattn._hub_net_plan import DELETED, Change, Remote, compare, needed, read_remote
from seattn.core.errors import UserError
from seattn.models._hub import hub_call


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
