"""Bounds on how long huggingface_hub waits: by itself it posts without a time-out and sleeps for any Retry-After.

Everything hangs on one setting of the Hub's client, HF_HUB_DOWNLOAD_TIMEOUT (10 seconds): a question must be answered
within it, an upload within PATIENCE times it, and a request is tried anew for no longer than that. So a server that
answers nothing costs 60 seconds and one more wait; a download that gets data goes on for as long as it gets some.
"""

import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils import _http, are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from huggingface_hub.utils import logging as hub_logging

from seattn.core.errors import UserError

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
