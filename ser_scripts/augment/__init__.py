"""Augmentations of training clips, from specs."""
