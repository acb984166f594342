"""What the user did wrong, in one line: what, where, and what would be right."""


class UserError(ValueError):
    """Bad input. The command line prints its message alone on stderr and exits with code 2."""
