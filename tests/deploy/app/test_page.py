"""The page and its server, over HTTP on this machine, without a browser."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from seattn.__main__ import main
from seattn.core.errors import UserError
from seattn.models.checkpoints.folder import save_net
from tests.helpers.commands import read_csv

pytest.importorskip("gradio", reason="gradio is in the extra `app`")

import gradio as gr
import timm
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from seattn.data.samples import load_sample
from seattn.deploy.app.answers import Classifier
from seattn.deploy.app.page import _Page, build_page, style
from seattn.deploy.app.server import LOCAL, PORTS, free_port, launch, private_folder

ARCH = "se_resnet20_cifar"
NAMES = load_sample("cifar10").class_names
THRESHOLD_HTML = "No class of the net has a probability of 100 %"


@pytest.fixture(scope="module")
def page():
    """What the page shows, without gradio around it; every file counts as uploaded."""
    return _Page(Classifier({ARCH: ARCH, "broken": "no_such_net"}), Path("/"), set(NAMES))


@pytest.fixture(scope="module")
def url(pictures):
    """The address of a page that is served. No connection leaves this machine."""
    connect = socket.socket.connect

    def connect_here(self, address):
        assert isinstance(address, str) or address[0] in (LOCAL, "::1", "localhost"), address
        return connect(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", connect_here)
    with private_folder() as folder:
        blocks = build_page({ARCH: ARCH}, folder, examples=[*pictures.values()], example_classes=NAMES)
        yield launch(blocks, LOCAL, free_port(LOCAL, None))
        blocks.close(verbose=False)
    patch.undo()
    assert not folder.exists()


def file_of(path, name=None):
    return {"path": str(path), "orig_name": name or path.name}


def test_an_image_is_answered_with_classes_map_and_gates(page, pictures):
    answer, label, reasons = page.one(ARCH, file_of(pictures["frog"]), 0)
    assert '<p class="seattn-answer">frog</p>' in answer
    assert next(iter(label["value"])) == "frog"
    assert len(label["value"]) == 5
    assert reasons["value"].count('<img src="data:image/png;base64,') == 2
    assert "Where the net looks for frog (Grad-CAM)" in reasons["value"]
    assert "<svg" in reasons["value"]
    assert "var(--text)" in reasons["value"]
    assert page.one(ARCH, None, 0)[1]["visible"] is False


def test_unknown_keeps_the_bars(page, pictures):
    answer, label, _ = page.one(ARCH, file_of(pictures["frog"]), 1)
    assert '<p class="seattn-answer">unknown</p>' in answer
    assert THRESHOLD_HTML in answer
    assert label["visible"]


def test_bad_images_and_weights_are_named_and_hide_the_last_answer(page, text):
    for name, file, reason in (
        (ARCH, file_of(text, "<b>my</b>.png"), "cannot read image &lt;b&gt;my&lt;/b&gt;.png: cannot identify"),
        (ARCH, file_of(text.parent / "gone.png"), "no such image file: gone.png"),
        ("broken", file_of(text), "unknown model &#39;no_such_net&#39;"),
        ("other", file_of(text), "there are no weights &#39;other&#39; here"),
    ):
        answer, *others = page.one(name, file, 0)
        assert 'role="alert"' in answer
        assert reason in answer
        assert str(text.parent) not in answer
        assert [other["visible"] for other in others] == [False, False]
    net, examples = page.net_and_examples("broken")
    assert 'role="alert"' in net
    assert examples["visible"] is False


def test_the_csv_is_that_of_predict(page, pictures, text, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(page, "_folder", tmp_path.parent)
    files = [file_of(path) for path in pictures.values()]
    summary, download, table = page.many(ARCH, [*files, file_of(text)], 0.9)
    assert "7 images classified." in summary
    assert "1 file could not be read" in summary
    assert "cannot read image text.png" in summary
    capsys.readouterr()
    monkeypatch.chdir(pictures["frog"].parent)
    names = [path.name for path in pictures.values()]
    assert main(["predict", "--csv", "--model", ARCH, "--unknown-below", "0.9", *names]) == 0
    assert Path(download["value"]).read_text() == capsys.readouterr().out
    rows = read_csv(Path(download["value"]))
    cells = re.findall("<td>(.*?)</td>", table["value"])
    assert cells[::3] == [path.name for path in pictures.values()]
    assert cells[1::3] == [row["answer"] for row in rows if row["rank"] == "1"]
    monkeypatch.setattr("seattn.deploy.app.page._SHOWN_ROWS", 2)
    assert "The first 2 of 7 images; the CSV has all." in page.many(ARCH, files, 0)[2]["value"]
    summary, download, table = page.many(ARCH, [file_of(text)], 0)
    assert "0 images classified" in summary
    assert (download["visible"], table["visible"]) == (False, False)
    assert page.many(ARCH, None, 0)[1]["visible"] is False
    assert 'role="alert"' in page.many("broken", files, 0)[0]


def test_names_of_classes_are_data(tmp_path, pictures):
    names = ("<script>alert(1)</script>", "same", "same*")
    save_net(timm.create_model(ARCH, num_classes=3), tmp_path, names)
    mine = _Page(Classifier({"mine": str(tmp_path)}), Path("/"), set(NAMES))
    assert mine.fits_examples("mine") is False
    answer, _, reasons = mine.one("mine", file_of(pictures["cat"]), 0)
    for text in (answer, reasons["value"], mine.net("mine")):
        assert "<script" not in text
    assert "&lt;script&gt;" in mine.net("mine")


def test_the_served_page_answers_and_takes_nothing_from_elsewhere(url, pictures, text):
    with urllib.request.urlopen(url) as response:
        html = response.read().decode()
    assert "fonts.googleapis" not in html
    with urllib.request.urlopen(f"{url}theme.css") as response:
        assert b"https:" not in response.read()
    client = Client(url, verbose=False)
    answer, label, _ = client.predict(ARCH, handle_file(str(pictures["frog"])), 0, api_name="/one")
    assert '<p class="seattn-answer">frog</p>' in str(answer)
    assert "frog" in str(label)
    (answer, *_) = client.predict(ARCH, handle_file(str(text)), 0, api_name="/one")
    assert "cannot read image text.png" in str(answer)
    secret = pictures["cat"]  # a file of this machine that nobody has uploaded
    file = {"path": str(secret), "orig_name": "x.png", "meta": {"_type": "gradio.FileData"}}
    for sent in (file, {**file, "meta": None}, {"path": str(secret)}):
        request = urllib.request.Request(
            f"{url}gradio_api/call/one",
            json.dumps({"data": [ARCH, sent, 0]}).encode(),
            {"Content-Type": "application/json"},
        )
        event = json.load(urllib.request.urlopen(request))["event_id"]
        with urllib.request.urlopen(f"{url}gradio_api/call/one/{event}") as stream:
            told = stream.read().decode()
        assert "event: error" in told or "png was not uploaded to this page" in told
        assert "seattn-answer" not in told
    with pytest.raises(AppError):
        client.predict(ARCH, [{"path": str(secret), "orig_name": "x.png"}], 0, api_name="/many")
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{url}gradio_api/file={secret}")


def test_a_page_without_examples_or_models(tmp_path):
    assert isinstance(build_page({ARCH: ARCH}, tmp_path), gr.Blocks)
    with pytest.raises(UserError, match="the page needs a model"):
        build_page({}, tmp_path)
    with pytest.raises(UserError, match="unknown model"):
        build_page({"mine": "no_such_net"}, tmp_path)


def test_figures_have_the_colours_of_reports():
    assert "https:" not in style()["css"]
    assert "--text: #e6e6e6" in style()["css"]


def test_a_port_that_is_taken_is_refused_or_passed_over():
    with socket.create_server((LOCAL, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1, port {port}: Address already in use; give"):
            free_port(LOCAL, port)
    assert free_port(LOCAL, port) == port
    assert free_port(LOCAL, None) in PORTS
    with pytest.raises(UserError, match=r"cannot listen on no\.such\.host\.invalid, ports 7860 to 7959: "):
        free_port("no.such.host.invalid", None)


def test_the_environment_is_as_before(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    with private_folder() as folder:
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        assert os.environ["NO_PROXY"] == "example.org,localhost,127.0.0.1"
        (folder / "file").touch()
    assert "GRADIO_TEMP_DIR" not in os.environ
    assert os.environ["NO_PROXY"] == "example.org"
    assert not folder.exists()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM], ids=lambda end: end.name)
def test_the_command_serves_until_it_is_ended(end, tmp_path):
    command = [sys.executable, "-m", "seattn", "app", ARCH, "--port", str(free_port(LOCAL, None))]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    line = process.stdout.readline()
    assert line.startswith("Image classification: http://127.0.0.1:")
    with urllib.request.urlopen(line.split()[2]) as response:
        assert b"Image classification" in response.read()
    process.send_signal(end)
    assert process.wait(timeout=30) == 0
    assert process.communicate()[1].startswith(f"{ARCH}.cifar10: weights from the file")
    assert not list(tmp_path.glob("seattn-app-*"))


def test_bad_input_is_one_line(fails, tmp_path, text):
    with socket.create_server((LOCAL, 0)) as taken:
        assert "Address already in use" in fails("app", "--port", taken.getsockname()[1])
    assert "unknown model 'se_resnet21_cifar'; did you mean" in fails("app", "se_resnet21_cifar")
    assert "has no tag 'x'" in fails("app", f"{ARCH}.x")
    assert "no such model or directory: runs/none" in fails("app", "runs/none")
    assert "cannot list the folder" in fails("app", "--examples", tmp_path / "none")
    assert "cannot read image" in fails("app", "--examples", text.parent)
    assert "greater than or equal to 1" in fails("app", "--port", "0")
    assert "cannot listen on 192.0.2.1" in fails("app", "--host", "192.0.2.1")
    assert "tpu" in fails("app", ARCH, "--device", "tpu")
