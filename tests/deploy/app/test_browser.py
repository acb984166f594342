"""A staged Space, started from its own requirements in a fresh environment, classifies images in a real browser.

pip downloads torch for it, some gigabytes. The screenshots stay in pytest's folder of temporary files.
"""

import csv
import os
import re
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="gradio is in the extra `app`")
pytest.importorskip("playwright", reason="playwright is in the extra `test`")

from playwright import sync_api

from seattn.deploy.app.server import LOCAL, free_port
from seattn.evaluation.prediction import CSV_COLUMNS, predict
from seattn.hub.space import stage_space
from seattn.models.load import load_model

ROOT = Path(__file__).resolve().parents[3]
NAME = "se_resnet20_cifar.cifar10"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WINDOWS = {"desktop": (1280, 900, "light"), "desktop, dark": (1280, 900, "dark"), "phone": (390, 844, "light")}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of an environment that has only what the Space's requirements.txt asks for."""
    root = tmp_path_factory.mktemp("environment")
    source = root / "source"
    for folder in ("seattn", "kernels"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    venv.create(root / "venv", with_pip=True)
    python = root / "venv" / "bin" / "python"
    stage_space(NAME, root / "space")
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    _install([*pip, "wheel", "--no-deps", "--wheel-dir", root / "wheels", source])
    _install([*pip, "install", "--find-links", root / "wheels", "-r", root / "space" / "requirements.txt"])
    yield python
    shutil.rmtree(root / "venv")


def _install(command):
    done = subprocess.run(command, capture_output=True, text=True, cwd=command[0].parent)
    if "Failed to establish a new connection" in done.stderr or "Name or service not known" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def space(python, tmp_path_factory):
    """The address of the Space."""
    folder = tmp_path_factory.mktemp("started") / "space"
    stage_space(NAME, folder)
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "OMP_NUM_THREADS") if name in os.environ}
    environment["GRADIO_SERVER_PORT"] = str(free_port(LOCAL, None))
    process = subprocess.Popen(
        [python, "app.py"], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    line = process.stdout.readline()
    if not line.startswith(f"{NAME}: http://127.0.0.1:"):
        process.kill()
        pytest.fail(process.communicate()[1][-3000:])
    yield line.split()[1]
    process.terminate()
    assert process.wait(timeout=60) == 0
    assert "Traceback" not in process.communicate()[1]


@pytest.fixture(scope="module")
def chromium():
    sync_api.expect.set_options(timeout=60_000)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=WINDOWS)
def page(request, chromium, space, tmp_path):
    """The page in a window; at the end, the browser has asked nobody else and has seen no error."""
    width, height, scheme = WINDOWS[request.param]
    context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(120_000)
    asked, errors = set(), []
    page.on("request", lambda sent: asked.add(sent.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(space)
    yield page
    page.wait_for_timeout(500)
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert errors == []
    assert [url for url in asked if not url.startswith((space, "data:", "blob:"))] == []
    context.close()


def test_an_image_is_classified_with_its_reasons(page, pictures):
    page.locator("input[type=file]").first.set_input_files(pictures["frog"])
    answer = page.locator(".seattn-answer")
    sync_api.expect(answer).to_have_text("frog")
    expected = predict(load_model(NAME), [pictures["frog"]])[0]
    assert f"{expected.probabilities[0]:.1%}".replace("%", " %") in page.locator(".seattn-soft").nth(1).inner_text()
    assert page.locator(".seattn-pictures img").count() == 2
    width, height = page.locator(".seattn-figure svg").evaluate("e => [e.clientWidth, e.clientHeight]")
    assert min(width, height) > 100
    threshold = page.locator("input[type=number]").first
    threshold.fill("1")
    threshold.press("Enter")
    sync_api.expect(answer).to_have_text("unknown")


def test_an_example_and_other_weights_answer(page):
    page.locator(".gallery-item").nth(1).click()
    answer = page.locator(".seattn-answer")
    sync_api.expect(answer).to_have_text("cat")
    page.get_by_label("Weights").click()
    page.get_by_role("option", name=re.compile("eca_resnet20")).click()
    sync_api.expect(page.get_by_text("272,501 parameters")).to_be_visible()
    sync_api.expect(answer).to_have_text("cat")


def test_a_file_that_is_no_image_is_named_and_the_next_one_is_answered(page, text, pictures):
    upload = page.locator("input[type=file]").first
    upload.set_input_files(text)
    problem = page.locator(".seattn-problem")
    sync_api.expect(problem).to_contain_text("cannot read image text.png")
    page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()
    page.locator("input[type=file]").first.set_input_files(pictures["horse"])
    sync_api.expect(page.locator(".seattn-answer")).to_have_text("horse")
    assert problem.count() == 0


def test_many_images_become_a_csv(page, text, pictures, tmp_path):
    page.get_by_role("tab", name="Many images").click()
    page.locator("input[type=file]").last.set_input_files([*pictures.values(), text])
    page.get_by_label("text.png").wait_for()
    page.get_by_role("button", name="Classify").click()
    sync_api.expect(page.get_by_text("7 images classified.")).to_be_visible()
    sync_api.expect(page.locator(".seattn-problem")).to_contain_text("cannot read image text.png")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").or_(page.get_by_role("link", name="Download CSV")).first.click()
    download.value.save_as(tmp_path / "predictions.csv")
    header, *rows = csv.reader((tmp_path / "predictions.csv").read_text().splitlines())
    assert tuple(header) == CSV_COLUMNS
    assert [row[0] for row in rows if row[1] == "1"] == [path.name for path in pictures.values()]
    assert len(rows) == 5 * len(pictures)
