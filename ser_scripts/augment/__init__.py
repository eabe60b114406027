"""Augmentation of training clips from specs: which copies an epoch has, and each copy as a pure function of its key."""

from ser_scripts.augment.augmenter import Augmenter

__all__ = ["Augmenter"]
