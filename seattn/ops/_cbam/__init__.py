"""The operators of CBAM's two gates."""
