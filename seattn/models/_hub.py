"""What any failure of a request to the Hub is to the user: one line that says what to do, and never the token."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, get_token
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

from seattn._hub_net_patience import UnreachableError, patience
from seattn.core.errors import UserError, first_line

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
