"""The `seattn` command: a file for each group of commands."""
