"""Residual blocks with attention: where it can go into a block, and putting it there."""
