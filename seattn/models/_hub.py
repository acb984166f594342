"""The Hugging Face Hub: its files in the cache, and its failures as errors of one line.

Only huggingface_hub sends requests to the Hub, so HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and its other settings apply.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, get_token, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
)
from timm.models import get_pretrained_cfg

from seattn.core.client import class_names, requested_wait
from seattn.core.errors import UserError, first_line
from seattn.core.files import sha256

LOGIN = "log in with `hf auth login`, or set HF_TOKEN"
_HINTS = {
    401: f"the repository is private or does not exist, or the token is wrong or has expired; {LOGIN}",
    403: "use a token that has this permission",
    404: f"check the name; if the repository is private, {LOGIN}",
    412: "another commit was made meanwhile, and nothing was written; run this again",
    429: "try again in some minutes",
}


class UnreachableError(UserError):
    """The Hub does not answer, or HF_HUB_OFFLINE is set."""


@contextmanager
def hub_call(
    repo: str, errors: tuple[type[Exception], ...] = (Exception,), *, cache_dir: Path | str | None = None
) -> Iterator[None]:
    """Turn a failure of the body, which asks the Hub about `repo`, into an error of one line without the token.

    Args:
        repo: `org/name`, for the message.
        errors: the exceptions that mean a failure of the Hub. By default all, because the client can raise any
            exception for an unexpected answer; a body that also builds a model names fewer.
        cache_dir: folder of the downloaded files, if not HF_HUB_CACHE; for the message.

    Raises:
        UserError: for each of `errors`; an UnreachableError if the Hub gave no answer.
    """
    token = checked_token()
    try:
        yield
    except errors as error:
        explained = _explain(error, repo, cache_dir or constants.HF_HUB_CACHE)
        if token is not None and any(token in str(cause) for cause in _causes(error)):
            message = str(explained).replace(token, "(token)")
            raise type(explained)(message) from None  # a traceback would show the cause
        if explained is error:
            raise
        raise explained from error


def checked_token() -> str | None:
    """The token of the environment or of the login, if there is one.

    Raises:
        UserError: if the token cannot be sent; the client would show it in its own error.
    """
    try:
        token = get_token()
    except Exception as error:  # a token that must first be refreshed or exchanged
        raise UserError(f"cannot get a token for the Hub: {first_line(error)}; {LOGIN}") from error
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise UserError("the token for the Hub (HF_TOKEN or the login) has invalid characters; copy it again")
    return token


def timm_repository(name: str) -> str | None:
    """The repository `org/name` of the weights that timm knows as `name`, `arch` or `arch.tag`."""
    cfg = get_pretrained_cfg(name)
    if cfg is None or not cfg.hf_hub_id:
        return None
    full_name = f"{cfg.architecture}.{cfg.tag}" if cfg.tag else cfg.architecture
    return f"timm/{full_name}" if cfg.hf_hub_id == "timm/" else str(cfg.hf_hub_id)


def split_revision(repo: str) -> tuple[str, str | None]:
    """`org/name` and the revision of `org/name@revision`; None where no revision is given.

    Raises:
        UserError: if the name has more than one @.
    """
    name, _, revision = repo.partition("@")
    if "@" in revision:
        raise UserError(f"{repo!r} is not the name of a repository, ORG/NAME or ORG/NAME@REVISION")
    return name, revision or None


def fetch_file(repo: str, filename: str, *, cache_dir: Path | str | None = None) -> Path:
    """Path in the cache of a file of `repo` (`org/name` or `org/name@revision`), downloaded if it is not there.

    Raises:
        UserError: if it cannot be downloaded, or the file in the cache is damaged.
    """
    name, revision = split_revision(repo)
    with hub_call(repo, cache_dir=cache_dir):
        path = Path(hf_hub_download(name, filename, revision=revision, cache_dir=cache_dir))
    check_cached(path)
    return path


def check_cached(path: Path) -> None:
    """Compare a large file of the cache with its SHA-256: a link to it points to a file that has the digest as name.

    Raises:
        UserError: if the file is damaged.
    """
    blob = path.resolve()
    if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name) and sha256(blob) != blob.name:
        raise UserError(
            f"{blob}, which is {path.name} in the cache, is damaged: its SHA-256 is not {blob.name[:12]}…; delete this "
            "file and run this again to download it"
        )


def _explain(error: Exception, repo: str, cache_dir: Path | str) -> UserError:
    """An error of one line for the first cause of `error` that is known."""
    for cause in _causes(error):
        explained = _explain_cause(cause, repo, cache_dir)
        if explained is not None:
            return explained
    return UserError(
        f"{constants.ENDPOINT} does not answer about {repo} as a Hub does ({type(error).__name__}: "
        f"{first_line(error)[:200]}); check HF_ENDPOINT"
    )


def _explain_cause(error: BaseException, repo: str, cache_dir: Path | str) -> UserError | None:
    hub, names, message = constants.ENDPOINT, class_names(error), first_line(error)[:200]
    if isinstance(error, UserError):
        return error
    if isinstance(error, HfHubHTTPError):
        return UserError(_explain_status(error, repo))
    if isinstance(error, HFValidationError):
        return UserError(f"{repo!r} is not the name of a repository, ORG/NAME: {message}")
    if isinstance(error, OfflineModeIsEnabled) and constants.is_offline_mode():
        return UnreachableError(
            f"{repo} is not complete in the cache {cache_dir}, and HF_HUB_OFFLINE forbids requests to {hub}; run "
            f"`seattn hub pull {repo}` where there is a network"
        )
    if "TimeoutException" in names:
        return UnreachableError(
            f"{hub} did not answer about {repo} in time; try again, or set HF_HUB_DOWNLOAD_TIMEOUT to more seconds"
        )
    if names & {"ConnectError", "ProxyError", "UnsupportedProtocol", "InvalidURL"}:
        return UnreachableError(f"cannot reach {hub} for {repo}: {message}; check the network and HF_ENDPOINT")
    if names & {"NetworkError", "ProtocolError"}:
        return UnreachableError(
            f"the connection to {hub} was lost while it was asked about {repo} ({message}); try again"
        )
    if isinstance(error, FileMetadataError):
        return UserError(f"{hub} does not answer about {repo} as a Hub does ({message}); check HF_ENDPOINT")
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return UserError(f"the download of {repo} is not as long as the Hub announced ({message}); run this again")
    if isinstance(error, OSError) and error.strerror:
        return UserError(
            f"cannot write {error.filename or cache_dir}: {error.strerror}; give another folder as cache_dir "
            "(--cache-dir), or set HF_HOME"
        )
    return None


def _explain_status(error: HfHubHTTPError, repo: str) -> str:
    """The server's message, and the remedy."""
    response, hub = error.response, constants.ENDPOINT
    status = response.status_code
    words = " ".join((error.server_message or first_line(error)).split())[:200].rstrip(".")
    if isinstance(error, EntryNotFoundError):
        return f"{hub}/{repo} has no such file: {response.url.path}; was it made by `seattn hub publish`?"
    if isinstance(error, GatedRepoError):
        hint = f"ask for access on its page, then {LOGIN}"
    elif (wait := requested_wait(response)) is not None:
        hint = f"try again in {wait} seconds"
    else:
        hint = _HINTS.get(status, "try again later" if status >= 500 else "see the documentation of the Hub")
    return f"{hub} refuses the request about {repo} ({status}: {words}); {hint}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error`, its cause, the cause of that, and so on."""
    for _ in range(50):  # a chain of causes can be circular
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
