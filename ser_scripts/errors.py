"""The errors of the evaluation room, under the name that this room's modules import."""

from ser_eval.errors import BadInput, Finding, SerError, SplitRefused

__all__ = ["BadInput", "Finding", "SerError", "SplitRefused"]
