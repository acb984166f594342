"""What is installed and used: the command `info`."""
