"""Exported nets against PyTorch: size, accuracy and speed of one net in several runtimes."""
