"""Expand an experiment into runs and execute them."""
