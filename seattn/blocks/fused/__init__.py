"""Modules whose forward is one of our ops; each is registered for the class of timm or torchvision that it replaces."""
