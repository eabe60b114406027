"""One module per corpus; each opens with its layout, and states citation, licence and source.

A new corpus is one new file here with the members of `Corpus`; it is found by its file name.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from ser_scripts.errors import BadInput
from ser_scripts.specs.base import nearest

_NOT_A_CORPUS = frozenset({"csv_corpus", "listing"})


@dataclass(frozen=True)
class ClipRow:
    """What a corpus says about one clip, before its audio is opened."""

    path: str
    """POSIX, relative to the corpus root; absolute only for clips of a CSV that lie elsewhere."""
    class_id: str
    """In the vocabulary of `labels.py`; free text for a CSV."""
    actor: str
    """The speaker's name as text, "" where unknown."""
    gender: str
    """female, male, other or unknown."""
    group: str | None = None
    """The unit that must not cross a split, where it is wider than the speaker."""
    sentence: str | None = None
    language: str | None = None
    """BCP-47; None where it is the corpus' language."""


class Corpus(Protocol):
    """The members of every corpus module."""

    NAME: str
    """The module's file name, and the corpus' folder under SER_DATA."""
    TITLE: str
    LANGUAGE: str
    """BCP-47."""
    LICENCE: str
    CITATION: str
    SOURCE: str
    LABELS: dict[str, str]
    """The corpus' own label to the vocabulary of `labels.py`."""
    EXPECTED_CLIPS: int
    EXPECTED_SPEAKERS: int

    def read(self, root: Path) -> list[ClipRow]:
        """Rows of all clips found under `root`, sorted by path; names that are not of the corpus raise BadInput."""
        ...

    def expected_stems(self, root: Path) -> list[str] | None:
        """File names without suffix of the complete corpus, sorted; None where they are not known."""
        ...


def names() -> list[str]:
    """Names of all corpora, sorted."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in found if not name.startswith("_") and name not in _NOT_A_CORPUS)


def get(name: str) -> Corpus:
    """The module of a corpus.

    Raises:
        BadInput: no corpus has this name
    """
    if name not in names():
        raise BadInput(f"corpus '{name}' is not known{nearest(name, names())}")
    return cast(Corpus, importlib.import_module(f"{__name__}.{name}"))
