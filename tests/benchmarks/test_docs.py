"""The reference of the Python API: its pages have the public names and the recipe's keys, and a warning is an error."""

import html
import importlib
import re

import pytest

pytest.importorskip("pdoc", reason="pdoc is in the extra `docs`")

from benchmarks.docs import __main__ as docs
from seattn.core.errors import UserError
from seattn.core.recipe.table import recipe_keys

PUBLIC = ("seattn", *(f"seattn.{name}" for name in ("layers", "ops", "models", "blocks", "training", "evaluation")))
PUBLIC += ("seattn.hub", "seattn.deploy", "seattn.models.checkpoints", "seattn.core.recipe")


def test_all_but_private_modules_and_the_command_line_have_a_page():
    names = docs.public_modules()
    assert set(PUBLIC) <= set(names)
    assert "seattn.evaluation.scoring" in names
    assert [name for name in names if "._" in name or name.startswith("seattn.cli")] == []


@pytest.mark.slow
def test_the_pages_have_every_public_name_with_its_docstring_and_the_keys(tmp_path):
    out = tmp_path / "docs"
    assert docs.main(["--out", str(out)]) == 0
    pages = {name: (out / f"{name.replace('.', '/')}.html").read_text(encoding="utf-8") for name in PUBLIC}
    for module, page in pages.items():
        for name in importlib.import_module(module).__all__:
            is_module = (out / module.replace(".", "/") / f"{name}.html").exists()
            shown = f'href="[^"]*{name}.html"' if is_module else f'id="{name}"'
            assert re.search(shown, page), f"{module}.{name}"
    accelerate = pages["seattn"].partition('<section id="accelerate">')[2].partition("</section>")[0]
    assert "Arguments:" in accelerate
    assert "<strong>verbose:</strong>" in accelerate
    assert "seattn/blocks.html" in pages["seattn"], "the navigation lists submodules that are not in __all__"
    text = html.unescape(re.sub("<[^>]*>", "", pages["seattn.core.recipe"]))
    assert [key.key for key in recipe_keys() if key.key not in text] == []
    assert "The highest learning rate of the schedule." in text
    assert [module for module, page in pages.items() if re.search("FieldInfo| at 0x", page)] == []
    nets = (out / "seattn" / "models" / "resnet_cifar.html").read_text(encoding="utf-8")
    net = nets.partition('<section id="se_resnet20_cifar">')[2].partition("</section>")[0]
    assert "se attention, 9 basic blocks" in net
    assert "partial" not in net
    assert (out / "index.html").is_file()
    assert "finetune" in (out / "search.js").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ('def f(x: "Missing") -> None:\n    """A function."""\n', "Missing"),
        ('"""A module."""\n__all__ = ["nothing"]\n', "'nothing' in broken.__all__"),
        ('def f() -> None:\n    """Reads DIR/<class>/IMAGE."""\n', "broken.f: <class> in the docstring is not in"),
    ],
    ids=["type", "name", "tag"],
)
def test_a_warning_is_an_error_and_the_earlier_pages_stay(tmp_path, monkeypatch, code, message):
    (tmp_path / "broken.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(docs.sys.modules, "broken", raising=False)
    monkeypatch.setattr(docs, "public_modules", lambda: ["broken"])
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "seattn.html").write_text("earlier")
    with pytest.raises(UserError, match=re.escape(message)):
        docs.build(tmp_path / "docs")
    assert [path.read_text() for path in (tmp_path / "docs").iterdir()] == ["earlier"]


def test_a_folder_of_something_else_is_refused(tmp_path, command_fails):
    (tmp_path / "photo.jpg").write_text("mine")
    assert "is not a reference that this command has made" in command_fails(docs, "--out", tmp_path)
    assert "is not a reference" in command_fails(docs, "--out", tmp_path / "photo.jpg")
    assert "unrecognized arguments: --nonsense" in command_fails(docs, "--nonsense")
    assert (tmp_path / "photo.jpg").read_text() == "mine"
