"""The spec classes: experiment and model JSON, strict and frozen."""
