"""The server of the page: it runs until it is interrupted, and sends nothing to another machine."""

import errno
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from seattn.core.errors import UserError
from seattn.core.files import system_reason
from seattn.data.samples import load_sample, write_examples
from seattn.deploy.app.page import TITLE, build_page, style

LOCAL = "127.0.0.1"
PORTS = range(7860, 7960)  # tried in this order; gradio's
MAX_FILE_SIZE = "100mb"


def run(
    models: Mapping[str, str],
    *,
    examples: Sequence[Path] | None = None,
    example_classes: Sequence[str] = (),
    title: str = TITLE,
    device: str = "cpu",
    host: str | None = None,
    port: int | None = None,
) -> None:
    """Serve the page of `build_page` until Ctrl-C or SIGTERM, and print its URL.

    Uploaded files and results are in a folder that is removed at the end.

    Args:
        models, example_classes, title, device: as in `build_page`.
        examples: image files to choose from; by default those of `write_examples`.
        host: the name or address to listen on. By default GRADIO_SERVER_NAME, which Hugging Face Spaces set; if that
            is not set, only this machine can use the page.
        port: by default GRADIO_SERVER_PORT, or the first free port of PORTS.

    Raises:
        UserError: if the server cannot listen on the host and port, or the first model cannot be loaded.
    """
    host = host or os.environ.get("GRADIO_SERVER_NAME") or LOCAL
    port = free_port(host, port or _port_of_environment())
    with _signal_as_interrupt(), private_folder() as folder:
        if examples is None:
            examples, example_classes = write_examples(folder), load_sample("cifar10").class_names
        page = build_page(
            models, folder, examples=examples, example_classes=example_classes, title=title, device=device
        )
        url = launch(page, host, port)
        try:
            print(f"{title}: {url} (Ctrl-C ends it)", flush=True)
            threading.Event().wait()
        except KeyboardInterrupt:
            pass
        finally:
            page.close(verbose=False)


def launch(page: gr.Blocks, host: str, port: int) -> str:
    """Serve the page in the background, without gradio's links, statistics and history; returns its URL."""
    page.launch(
        server_name=f"[{host}]" if ":" in host else host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        mcp_server=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        max_file_size=MAX_FILE_SIZE,
        **style(),
    )
    return str(page.local_url)


def free_port(host: str, port: int | None) -> int:
    """The port to listen on: `port`, or the first free one of PORTS.

    Raises:
        UserError: if this machine cannot listen on the host, or no port is free.
    """
    problem: OSError | None = None
    for candidate in PORTS if port is None else [port]:
        try:
            (family, _, _, _, address), *_ = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)
            with socket.socket(family, socket.SOCK_STREAM) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(address)
            return candidate
        except OSError as error:
            problem = error
            if error.errno != errno.EADDRINUSE:
                break
    where = f"{host}, port {port}" if port else f"{host}, ports {PORTS[0]} to {PORTS[-1]}"
    reason = "no port is free" if problem is None else system_reason(problem)
    raise UserError(f"cannot listen on {where}: {reason}; give another --host or --port")


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for the files that gradio keeps, which is removed at the end.

    Meanwhile GRADIO_TEMP_DIR names the folder for gradio, and NO_PROXY keeps a proxy out of the HTTP request by which
    gradio checks that its server listens.
    """
    with tempfile.TemporaryDirectory(prefix="seattn-app-", ignore_cleanup_errors=True) as folder:
        direct = ",".join(filter(None, (os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "localhost", LOCAL)))
        with _environment({"GRADIO_TEMP_DIR": folder, "NO_PROXY": direct, "no_proxy": direct}):
            yield Path(folder)


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _signal_as_interrupt() -> Iterator[None]:
    """SIGTERM ends the process as Ctrl-C does; otherwise the uploaded files would stay on the disk."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _port_of_environment() -> int | None:
    text = os.environ.get("GRADIO_SERVER_PORT") or ""
    if text and not (text.isdecimal() and 0 < int(text) < 65536):
        raise UserError(f"GRADIO_SERVER_PORT must be a port, from 1 to 65535, not {text!r}")
    return int(text) if text else None
