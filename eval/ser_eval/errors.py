"""The errors a user sees. Each carries the exit code of the command line (0 well, 1 negative finding, 2 bad input)."""

from __future__ import annotations


class SerError(Exception):
    """Base of every error that is the user's to mend; the command line prints its text, without a traceback."""

    exit_code = 2


class BadInput(SerError, ValueError):
    """A file, key or value is wrong. The text names file, key, value and what would be valid."""


class MetricError(BadInput):
    """A metric is not defined for these inputs (lengths differ, a class has no reference clip)."""


class Finding(SerError):
    """The work ran and its outcome is negative: a leak, a failed run, a mismatch."""

    exit_code = 1


class SplitRefused(Finding):
    """A split that would not be honest or cannot be made; names the speakers or clips concerned."""
