"""A Hub on this machine for each test, and no other one: the real client, an empty cache, no token, no network."""

import shutil
import socket
import time
from types import SimpleNamespace

import pytest
import timm
from huggingface_hub import constants, file_download, set_client_factory
from huggingface_hub.utils import _http, enable_progress_bars, logging
from PIL import Image

from seattn.core.client import bound_waits
from seattn.hub.staging import stage
from tests.helpers.hub.server import Hub
from tests.helpers.hub.user import BIRDS, NAME, REPO, read
from tests.helpers.runs import write_run

TOKEN = "hf_a-token-that-must-never-be-seen"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def client(monkeypatch, tmp_path):
    """The client of the command line, for a user without a login; whatever leaves this machine fails."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    use(monkeypatch, NOWHERE)
    connect = socket.socket.connect

    def connect_here(self, address):
        here = isinstance(address, str) or address[0] in ("127.0.0.1", "::1", "localhost")
        assert here, f"a test went to the network: {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    set_client_factory(_http.default_client_factory)
    bound_waits()
    yield
    set_client_factory(_http.default_client_factory)
    logging.set_verbosity_warning()
    enable_progress_bars()


@pytest.fixture
def hub(monkeypatch):
    """An empty Hub, which the client uses; `TOKEN` may write to `org`."""
    with Hub() as server:
        server.store.writers[TOKEN] = ["org"]
        use(monkeypatch, server.url)
        yield server


@pytest.fixture
def login(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return TOKEN


@pytest.fixture
def no_waiting(monkeypatch):
    """The client's pauses between tries pass at once; how long each was to be."""
    pauses = []
    set_pause(monkeypatch, pauses.append)
    return pauses


@pytest.fixture
def short(monkeypatch):
    """As with HF_HUB_DOWNLOAD_TIMEOUT=0.2, and pauses between tries of at most 0.3 seconds."""
    for name in ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"):
        monkeypatch.setattr(constants, name, 0.2)
    set_pause(monkeypatch, lambda seconds: time.sleep(min(seconds, 0.3)))


def set_pause(monkeypatch, sleep):
    """Of the client alone: our server sleeps too."""
    clock = SimpleNamespace(sleep=sleep, time=time.time, monotonic=time.monotonic)
    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", clock)


@pytest.fixture(scope="session")
def staged(tmp_path_factory):
    """The stage of a small run: a folder that is ready to be published. Tests that change it take `folder`."""
    root = tmp_path_factory.mktemp("published")
    write_run(root / "run", BIRDS)
    stage("my_birds", root / "stage", run=root / "run")
    return root / "stage"


@pytest.fixture
def folder(staged, tmp_path):
    """A copy of `staged`."""
    return shutil.copytree(staged, tmp_path / "stage")


@pytest.fixture(scope="session")
def shipped(tmp_path_factory):
    """The stage of weights of the package, which has results of each class."""
    folder = tmp_path_factory.mktemp("packaged") / "stage"
    stage(NAME, folder)
    return folder


@pytest.fixture
def on_hub(hub, staged):
    """The Hub, with `staged` as `REPO`."""
    hub.store.put(REPO, read(staged))
    return hub


@pytest.fixture
def without_packaged_file(monkeypatch):
    """The package came without the file of its weights, as a net too large to ship does."""
    for cfg in (timm.get_pretrained_cfg(NAME), timm.models._registry._model_pretrained_cfgs[NAME]):
        monkeypatch.setattr(cfg, "file", None)


@pytest.fixture
def photo(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def use(monkeypatch, url):
    """As HF_ENDPOINT does in a fresh process."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
