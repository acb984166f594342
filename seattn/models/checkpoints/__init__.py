"""Files of weights: ours, timm's and those of other code, read, recognised and converted."""
