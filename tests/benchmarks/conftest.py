"""Fixtures for the commands of benchmarks/."""

from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture
def command_fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Call a command, check that it ends with 2 and one line on stderr that begins with its name; return the line."""

    def call(module: ModuleType, *arguments: object) -> str:
        assert module.main([str(argument) for argument in arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"{module.__name__.split('.')[1]}: ")
        assert err.count("\n") == 1
        return err

    return call
