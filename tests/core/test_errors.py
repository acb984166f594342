"""Errors of the user are one line, in words that a user can follow."""

import pytest

from seattn.core.errors import first_line


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("one\ntwo", "one"),
        ("  ", "RuntimeError"),
        ("The file is cut. Please call torch.load with weights_only=False.", "The file is cut."),
        ("Dataset not found. You can use download=True to download it", "Dataset not found."),
        ("Cannot use ``weights_only=True`` with this file. It is old.", "RuntimeError"),
        ("unexpected keyword argument 'rd=4'", "unexpected keyword argument 'rd=4'"),
    ],
)
def test_the_first_line_ends_where_a_library_advises_its_programmers(message, line):
    assert first_line(RuntimeError(message)) == line
