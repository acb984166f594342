"""Folders of images: splits, class folders, files, and splits made of links."""
