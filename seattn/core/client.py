"""The HTTP client that huggingface_hub gets in the command line: no request waits long."""

import re
import sys
from typing import Any

# A request may take these many times HF_HUB_DOWNLOAD_TIMEOUT, which is 10 seconds by default; connecting, as HEAD.
UPLOAD_FACTOR = 6  # for requests that send data
_FACTORS = {"GET": 1.0, "HEAD": 0.5}
_STATISTICS = "/api/agent-harnesses"  # asked once a day before the first request, and waited for up to 3 seconds


def bound_waits() -> None:
    """Give huggingface_hub a client that never waits long, for the rest of the process: for the command line alone.

    By default huggingface_hub sends data without a time-out, tries again for half a minute when the Hub cannot be
    reached, and sleeps for as long as a server asks. With this client an unreachable Hub counts as offline at once,
    so cached files are used, and a server that asks to wait longer than an upload may take is an error. After a GET or
    HEAD without an answer, nothing more is sent to that host. Retries are not logged, the Hub's statistics are not
    requested, and no progress bars are written to a pipe or file.
    """
    from huggingface_hub import constants, get_session, set_client_factory
    from huggingface_hub.errors import OfflineModeIsEnabled
    from huggingface_hub.utils import disable_progress_bars, hf_raise_for_status, logging

    if logging.get_verbosity() == logging.WARNING:
        logging.set_verbosity(logging.ERROR)
    if constants.HF_HUB_DISABLE_PROGRESS_BARS is None and not sys.stderr.isatty():
        disable_progress_bars()
    session = get_session()
    event_hooks, client_class = session.event_hooks, type(session)
    if client_class.__name__ == "BoundedClient":
        return

    def time_limit(method: str) -> float:
        return float(constants.HF_HUB_DOWNLOAD_TIMEOUT) * _FACTORS.get(method, UPLOAD_FACTOR)

    silent: dict[str, Exception] = {}  # the error of each host that did not answer

    class BoundedClient(client_class):  # type: ignore[valid-type, misc]  # of httpx or httpx2, by the version
        def send(self, request: Any, **options: Any) -> Any:
            host = f"{request.url.host}:{request.url.port}"
            if host in silent:
                raise OfflineModeIsEnabled(f"no answer from {host}: {silent[host]}") from silent[host]
            if request.url.path == _STATISTICS:
                raise OfflineModeIsEnabled(f"{_STATISTICS} is not needed")
            limit, timeout = time_limit(request.method), request.extensions.get("timeout", {})
            limits = {"connect": time_limit("HEAD"), "read": limit, "write": limit, "pool": limit}
            request.extensions["timeout"] = {
                phase: min(timeout.get(phase) or most, most) for phase, most in limits.items()
            }
            try:
                response = super().send(request, **options)
            except Exception as error:
                if class_names(error) & {"ConnectError", "TimeoutException"}:
                    if request.method in ("GET", "HEAD"):
                        silent[host] = error
                    raise OfflineModeIsEnabled(f"no answer from {host}: {error}") from error
                raise
            if (requested_wait(response) or 0) > time_limit("POST"):
                response.read()
                hf_raise_for_status(response)
            return response

    set_client_factory(lambda: BoundedClient(event_hooks=event_hooks, follow_redirects=True))


def requested_wait(response: Any) -> int | None:
    """Seconds for which a server asks to wait, by the header Retry-After or by the Hub's header `ratelimit`."""
    if response.status_code < 400:
        return None
    after = response.headers.get("retry-after", "").strip()
    if after.isdigit():
        return int(after)
    limit = re.search(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d+)", response.headers.get("ratelimit", ""))
    return int(limit[1]) if limit else None


def class_names(error: BaseException) -> set[str]:
    """The names of the classes of `error`: huggingface_hub has changed its HTTP client twice, and the names stayed."""
    return {cls.__name__ for cls in type(error).__mro__}
