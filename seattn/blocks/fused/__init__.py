"""Modules whose forward is one of our ops, in place of timm's and torchvision's; each registers what it stands for."""
