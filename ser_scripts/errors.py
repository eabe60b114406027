"""The errors of the evaluation room, under the name that this room's modules import; and what an error is about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ser_eval.errors import BadInput, Finding, SerError, SplitRefused

__all__ = ["BadInput", "Finding", "SerError", "SplitRefused", "about"]


@contextmanager
def about(what: str) -> Iterator[None]:
    """Put file and key in front of a BadInput from below, which knows them not: `experiments/mine.json: train`."""
    try:
        yield
    except BadInput as error:
        error.args = (f"{what}: {error}",)  # it stays the error that it is, with what it carries
        raise
