"""timm's own `tests/test_models.py` on every net of this package: `make test-timm`.

The tests are those of the installed timm: pip fetches its source package, or they are copied from the checkout that
TIMM_SCRIPTS names. They run in a folder of their own, where timm and seattn are the installed ones. Arguments go to
pytest: `-n 4`, `-k torchscript`, `-x`. Exit code: pytest's, or 2 if the tests cannot be had.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SECONDS = "900"  # a test: timm's own limits, 120 and more, are for the machines of its CI


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="timm-suite-") as folder:
        try:
            suite = fetch(Path(folder))
        except (OSError, tarfile.TarError, subprocess.CalledProcessError) as error:
            print(f"test-timm: {error}", file=sys.stderr)
            return 2
        paths = [ROOT, ROOT / "kernels", ROOT / "tests", os.environ.get("PYTHONPATH", "")]
        env = {
            "TIMEOUT": SECONDS,
            **os.environ,
            "TORCH_BACKEND": "seattn",  # timm's tests import it
            "GITHUB_ACTIONS": "1",  # leave out timm's largest nets
            "PYTHONPATH": os.pathsep.join(str(path) for path in paths if path),
        }
        command = [sys.executable, "-m", "pytest", "-p", Path(__file__).stem, "tests/test_models.py", *arguments]
        return subprocess.run(command, cwd=suite, env=env, check=False).returncode


def fetch(folder: Path) -> Path:
    """A folder under `folder` that holds `tests` and `pyproject.toml` of timm's sources, and nothing else of timm.

    Raises:
        OSError: if they cannot be had.
    """
    suite = folder / "suite"
    suite.mkdir()
    checkout = os.environ.get("TIMM_SCRIPTS")
    if checkout:
        if not (Path(checkout) / "tests" / "test_models.py").is_file():
            raise FileNotFoundError(f"TIMM_SCRIPTS={checkout} has no tests/test_models.py")
        for name in ("tests", "pyproject.toml"):
            (suite / name).symlink_to((Path(checkout) / name).resolve())
        return suite
    wanted = f"timm=={version('timm')}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", "timm", "--dest", str(folder), wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(folder.glob("*.tar.gz"))
    if done.returncode or not archives:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise OSError(f"pip could not fetch the source package of {wanted} ({reason}); set TIMM_SCRIPTS to a checkout")
    with tarfile.open(archives[0]) as archive:
        for member in archive.getmembers():
            path = Path(*Path(member.name).parts[1:])  # without timm-X/
            if member.isfile() and (path.parts[:1] == ("tests",) or path == Path("pyproject.toml")):
                member.name = str(path)
                archive.extract(member, suite, filter="data")
    return suite


# From here on this file is a pytest plugin, loaded by `-p`.


def pytest_configure(config: pytest.Config) -> None:
    """Let timm's lists by module, of nets that have `forward_intermediates`, include this package's modules."""
    import timm

    import seattn  # noqa: F401  # registers the nets

    list_models = timm.list_models
    modules = sorted({entry_module(name).rpartition(".")[2] for name in list_models() if is_ours(name)})

    def with_ours(*args, **kwargs):
        if isinstance(kwargs.get("module"), list):
            kwargs["module"] = [*kwargs["module"], *modules]
        return list_models(*args, **kwargs)

    timm.list_models = with_ours


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of this package's nets: by name, so that `se_resnet50` does not bring `legacy_se_resnet50`."""
    ours = [item for item in items if is_ours(net_of(item))]
    config.hook.pytest_deselected(items=[item for item in items if not is_ours(net_of(item))])
    items[:] = ours
    tests, nets = {item.function.__name__ for item in ours}, {net_of(item) for item in ours}
    print(f"\ntimm's suite: {len(ours)} cases of {len(tests)} tests on {len(nets)} nets of seattn")


def net_of(item: pytest.Item) -> str:
    """The net that a case is about, without its tag; "" if it is about none."""
    name = item.callspec.params.get("model_name") if hasattr(item, "callspec") else None
    return name.partition(".")[0] if isinstance(name, str) else ""


def is_ours(name: str) -> bool:
    import timm

    return timm.is_model(name) and entry_module(name).startswith("seattn.")


def entry_module(name: str) -> str:
    import timm

    return timm.model_entrypoint(name).__module__


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
