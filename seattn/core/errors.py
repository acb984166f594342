"""What the user did wrong, in one line: what, where, and what would be right."""


class UserError(ValueError):
    """Bad input. The command line prints its message alone on stderr and exits with code 2."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type's name where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
