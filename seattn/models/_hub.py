"""The one way to ask the Hub: bounded waits, checked files, and a failure as one line, never with the token.

huggingface_hub by itself posts without a time-out and sleeps for any Retry-After.
Everything hangs on one setting of the Hub's client, HF_HUB_DOWNLOAD_TIMEOUT (10 seconds): a question must be answered
within it, an upload within PATIENCE times it, and a request is tried anew for no longer than that. So a server that
answers nothing costs 60 seconds and one more wait; a download that gets data goes on for as long as it gets some.
Files are in the cache of huggingface_hub and held to the digests by which it names them there.
"""

import hashlib
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_token, hf_hub_download, set_client_factory, snapshot_download
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import _http, are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from huggingface_hub.utils import logging as hub_logging

from seattn.core.errors import UserError, first_line
from seattn.core.files import sha256

PATIENCE = 6
_WRITES = ("POST", "PUT", "PATCH", "DELETE")
_RETRIED = (408, 429, 500, 502, 503, 504)  # the client tries anew after these

_lock = threading.Lock()
_depth = 0  # how many `patience` are open, in any thread: the client uploads in threads of its own
_quiet = ExitStack()  # what the first of them has changed and the last puts back
_tries: dict[tuple[str, str], tuple[float, int]] = {}  # (method, URL) -> first asked when, how often; until answered


class UnreachableError(UserError):
    """The Hub does not answer, or may not be asked."""


def patience_limit() -> float:
    """Seconds until a request that fails again and again is given up."""
    return PATIENCE * float(constants.HF_HUB_DOWNLOAD_TIMEOUT)


@contextmanager
def patience() -> Iterator[None]:
    """Within the body no request of huggingface_hub waits longer than it says above, and its retries are not logged.

    Raises:
        UnreachableError: from inside a request that is given up.
    """
    global _depth
    _install()
    with _lock:
        _depth += 1
        if _depth == 1:
            _tries.clear()
            _quiet.enter_context(_quietly())
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _quiet.close()


@contextmanager
def _quietly() -> Iterator[None]:
    """No warning at each retry, and no progress bars where nobody watches, unless the user's settings ask for them."""
    level = hub_logging.get_verbosity()
    if level == hub_logging.WARNING:
        hub_logging.set_verbosity(hub_logging.ERROR)
    hide = constants.HF_HUB_DISABLE_PROGRESS_BARS is None and not are_progress_bars_disabled()
    hide = hide and not sys.stderr.isatty()
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)
        if hide:
            enable_progress_bars()


def _install() -> None:
    """Make the client's factory, the user's own where there is one, add our hooks; they rest outside of `patience`."""
    factory = _http._GLOBAL_CLIENT_FACTORY
    if getattr(factory, "patient", False):
        return

    def patient_client() -> Any:
        client = factory()
        hooks = client.event_hooks
        client.event_hooks = {
            "request": [*hooks.get("request", []), _before],
            "response": [*hooks.get("response", []), _after],
        }
        return client

    patient_client.patient = True  # type: ignore[attr-defined]
    set_client_factory(patient_client)


def _before(request: Any) -> None:
    if not _depth:
        return
    writes = request.method in _WRITES
    limit = patience_limit() if writes else float(max(constants.HF_HUB_DOWNLOAD_TIMEOUT, constants.HF_HUB_ETAG_TIMEOUT))
    given = request.extensions.get("timeout", {})
    request.extensions["timeout"] = {
        kind: min(given.get(kind) or limit, limit) for kind in ("connect", "read", "write", "pool")
    }
    now, key = time.monotonic(), (request.method, str(request.url))
    with _lock:
        first, count = _tries.get(key, (now, 0))
        _tries[key] = first, count + 1
    waited = now - first
    if waited > patience_limit():
        raise UnreachableError(
            f"{_server(request)} gave no good answer for {waited:.0f} seconds; try again later, or allow it more by "
            "HF_HUB_DOWNLOAD_TIMEOUT (seconds)"
        )


def _after(response: Any) -> None:
    if not _depth:
        return
    key = response.request.method, str(response.request.url)
    with _lock:
        _, count = _tries.get(key, (0.0, 1)) if response.status_code >= 400 else _tries.pop(key, (0.0, 1))
    wait = _asked_to_wait(response) if response.status_code in _RETRIED else None
    if key[0] == "HEAD" and count == 1:
        return  # this one is not tried anew if the cache has the file
    if wait is not None and wait > patience_limit():
        raise UserError(
            f"{_server(response.request)} takes no more requests for now ({response.status_code}) and asks to wait "
            f"{wait} seconds; try again then"
        )


def _asked_to_wait(response: Any) -> int | None:
    """Seconds, by the header Retry-After or the Hub's own."""
    after = response.headers.get("retry-after", "").strip()
    if after.isdigit():
        return int(after)
    spent = re.search(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d+)", response.headers.get("ratelimit", ""))
    return int(spent[1]) if spent else None


def _server(request: Any) -> str:
    return f"{request.url.scheme}://{request.url.netloc.decode()}"


LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


@contextmanager
def hub_call(
    repo: str, errors: tuple[type[Exception], ...] = (Exception,), *, cache_dir: Path | str | None = None
) -> Iterator[None]:
    """Calls of huggingface_hub about `repo`, with bounded waits.

    Args:
        errors: what the Hub is to blame for. Of a body that only talks to it, all: a server can answer anything, and
            the client then raises anything, a KeyError as well.
        cache_dir: where the files go, if not into HF_HUB_CACHE.

    Raises:
        UserError: for whatever goes wrong in the body; UnreachableError where the Hub gave no answer at all.
    """
    with patience():
        token = checked_token()
        try:
            yield
        except errors as error:
            found = _explain(error, repo, constants.HF_HUB_CACHE if cache_dir is None else cache_dir)
            if token is not None and any(token in str(cause) for cause in _chain(error)):
                raise type(found)(str(found).replace(token, "(token)")) from None  # a traceback would show the cause
            if found is error:
                raise
            raise found from error


def checked_token() -> str | None:
    """The token of the environment or the login.

    Raises:
        UserError: if it cannot be sent; the client would show it in its own error.
    """
    try:
        token = get_token()
    except Exception as error:  # of a token that is to be refreshed or exchanged first
        raise UserError(f"cannot get a token for the Hub: {first_line(error)}; {LOGIN}") from error
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise UserError("the token for the Hub (HF_TOKEN, or the login's) holds characters that none has; copy it anew")
    return token


def _explain(error: BaseException, repo: str, cache_dir: Path | str) -> UserError:
    """`error`, or what caused it, in one line."""
    chain = list(_chain(error))
    for cause in chain:
        if isinstance(cause, UserError):
            return cause
    for cause in chain:
        if isinstance(cause, OfflineModeIsEnabled):
            return UnreachableError(
                f"{repo} is not in the cache {cache_dir}, or not whole, and HF_HUB_OFFLINE forbids to "
                f"fetch it; run `seattn hub pull {repo}` where there is a network"
            )
        if isinstance(cause, HFValidationError):
            return UserError(f"{repo!r} is no name of a repository, ORG/NAME: {first_line(cause)}")
        if isinstance(cause, HfHubHTTPError):
            return UserError(_of_status(cause, repo))
    for cause in chain:
        found = _of_connection(cause, repo)
        if found is not None:
            return found
    return UserError(
        f"{constants.ENDPOINT} does not answer about {repo} as a Hub does ({type(error).__name__}: "
        f"{_short(error)}); is HF_ENDPOINT right?"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(50):  # a chain can be a circle
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _of_status(error: HfHubHTTPError, repo: str) -> str:
    status, hub = error.response.status_code, constants.ENDPOINT
    if isinstance(error, GatedRepoError):
        return f"{hub}/{repo} is given to those who asked for it: ask on its page, then {LOGIN}"
    if isinstance(error, DisabledRepoError):
        return f"{hub} has closed {repo}; its page may say why"
    if isinstance(error, EntryNotFoundError):
        return f"{hub}/{repo} has no such file: {error.response.url.path}; was it made by `seattn hub publish`?"
    if isinstance(error, RevisionNotFoundError):
        return f"{hub}/{repo} has no such revision: {error.response.url.path}"
    if status == 401 and checked_token() is not None:
        return f"{hub} does not accept this token for {repo} (401): it is wrong, or has expired; {LOGIN}"
    if status == 401:
        return f"{hub} wants a login for {repo} (401): it is private, or is not there; {LOGIN}"
    if status == 404 or isinstance(error, RepositoryNotFoundError):
        return f"{hub} has no repository {repo}, or it is private ({status}); check the name, or {LOGIN}"
    if status == 403:
        return f"{hub} does not allow this token to do that with {repo} (403): {_said(error)}; use one that may"
    if status == 412:
        return f"somebody else has just changed {hub}/{repo} (412): nothing was written; run this again"
    if status == 429:
        return f"{hub} takes no more requests for now (429); try again in some minutes"
    if status >= 500:
        return f"{hub} has an error of its own ({status}: {_said(error)}); try again later"
    return f"{hub} refuses the request about {repo} ({status}): {_said(error)}"


def _of_connection(error: BaseException, repo: str) -> UserError | None:
    """By names of the client's errors: huggingface_hub has changed the client twice."""
    hub, names = constants.ENDPOINT, {kind.__name__ for kind in type(error).__mro__}
    if "TimeoutException" in names:
        return UnreachableError(
            f"{hub} did not answer about {repo} in time; try again, or allow it more by HF_HUB_DOWNLOAD_TIMEOUT"
        )
    if names & {"ConnectError", "ProxyError", "UnsupportedProtocol", "InvalidURL"}:
        return UnreachableError(f"cannot reach {hub} for {repo}: {_short(error)}; check the network, and HF_ENDPOINT")
    if names & {"NetworkError", "ProtocolError"}:
        return UnreachableError(f"the connection to {hub} broke off at {repo} ({_short(error)}); run this again")
    if isinstance(error, FileMetadataError):
        return UserError(f"{hub} does not answer about {repo} as a Hub does: {_short(error)}")
    if isinstance(error, OSError) and error.strerror and error.filename:
        return UserError(
            f"cannot write {error.filename}: {error.strerror}; give another folder as cache_dir (--cache-dir), or set "
            "HF_HOME"
        )
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return UserError(f"the download of {repo} came otherwise than announced: {_short(error)} Run this again")
    return None


def _said(error: HfHubHTTPError) -> str:
    """The server's own words, or the client's."""
    return " ".join((error.server_message or first_line(error)).split())[:200].rstrip(".")


def _short(error: BaseException) -> str:
    return first_line(error)[:200]


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
