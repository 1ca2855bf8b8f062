"""Architectures, from MONAI."""
