"""Files of the Hub, in the cache of huggingface_hub and held to the digests by which it names them there."""

import hashlib
import os
import re
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.hf_api import RepoFile

from seattn.core.errors import UserError
from seattn.core.files import sha256
from seattn.models._hub import hub_call

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


def fetch_file(repo: str, filename: str, *, cache_dir: Path | str | None = None) -> Path:
    """The file of `repo` (`org/name`, or with `@revision`) in the cache, fetched if the Hub has another one.

    Raises:
        UserError: if it cannot be had, or what is in the cache is damaged.
    """
    name, _, revision = repo.partition("@")
    with hub_call(repo, cache_dir=cache_dir):
        path = Path(hf_hub_download(name, filename, revision=revision or None, cache_dir=cache_dir))
    check_blob(path)
    return path


def fetch_repository(repo: str, *, cache_dir: Path | str | None = None) -> Path:
    """The folder, in the cache, of all files of `repo` (`org/name`, or with `@revision`) at one commit.

    What the branch is known to be in the cache is left as it was: `keep_revision` moves it, after a check. Offline it
    is what the cache has.

    Raises:
        UserError: if it cannot be had whole, or a file in the cache is damaged.
    """
    name, _, revision = repo.partition("@")
    revision = revision or constants.DEFAULT_REVISION
    with hub_call(repo, cache_dir=cache_dir):
        if constants.is_offline_mode():
            folder = Path(snapshot_download(name, revision=revision, cache_dir=cache_dir))
            files = [path for path in folder.rglob("*") if path.is_file()]
        else:
            api = HfApi()
            commit = str(api.model_info(name, revision=revision).sha)
            tree = api.list_repo_tree(name, recursive=True, revision=commit)
            listed = [entry.path for entry in tree if isinstance(entry, RepoFile)]
            # One after the other: they are few and small, but for one; and each failure is of one file.
            files = [Path(hf_hub_download(name, file, revision=commit, cache_dir=cache_dir)) for file in listed]
            if not files:
                raise UserError(f"{constants.ENDPOINT}/{repo} is empty: nothing was published there yet")
            folder = _snapshot(files[0], listed[0])
    for path in files:
        check_blob(path)
    return folder


def keep_revision(repo: str, *, cache_dir: Path | str | None = None) -> None:
    """Let what `fetch_repository` has fetched be what the branch is, in the cache: what is loaded offline from now on.

    Raises:
        UserError: if the repository cannot be reached any more.
    """
    if not constants.is_offline_mode():
        name, _, revision = repo.partition("@")
        with hub_call(repo, cache_dir=cache_dir):
            hf_hub_download(name, "config.json", revision=revision or None, cache_dir=cache_dir)


def check_blob(path: Path) -> None:
    """Hold that a file of the cache is what the Hub says it is: its blob is called by the digest of the content.

    Raises:
        UserError: naming the damaged file.
    """
    blob = Path(os.path.normpath(path.parent / path.readlink())) if path.is_symlink() else path
    if blob.parent.name != "blobs":
        return  # without symlinks there are no blobs, and no digest to compare with
    if _SHA256.fullmatch(blob.name):
        found = sha256(blob)
    elif _SHA1.fullmatch(blob.name):
        found = git_oid(blob)
    else:
        return
    if found != blob.name:
        raise UserError(
            f"{blob}, which is {path.name} in the cache, is damaged: its digest is {found[:12]}…, the Hub's "
            f"{blob.name[:12]}…; delete this file, and it is fetched again"
        )


def git_oid(path: Path) -> str:
    """Hex digest by which git, and the Hub for a file that is not large, name the content."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _snapshot(path: Path, file: str) -> Path:
    """The folder that `path`, which is `file` of the repository, stands in."""
    return path.parents[len(Path(file).parts) - 1]
