"""Data: a folder of images is read, split, augmented and given out in batches."""
