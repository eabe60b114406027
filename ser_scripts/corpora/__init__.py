"""One module per corpus; each opens with its layout, and states citation, licence and source.

A new corpus is one new file here with the members of `Corpus`; it is found by its file name.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal, Protocol, cast

from ser_scripts.errors import BadInput
from ser_scripts.specs.base import nearest

_NOT_A_CORPUS = frozenset(
    {"audiofolder_corpus", "csv_corpus", "emobox_corpus", "huggingface_corpus", "listing", "sources", "twins"}
)
_LOOKED_AT = 2000
"""So many file names, evenly spread, are enough to tell what a folder holds."""
_ALIKE = 0.5
"""Share of the file names that must fit a corpus before a folder is said to look like it."""


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
    intensity: str | None = None
    """In the corpus' own words, e.g. `strong`."""
    style: str | None = None
    """How the clip came about, where a corpus mixes it: `improvised`, `scripted`, `whispered`, ..."""
    partition: str | None = None
    """The corpus' own side: `train`, `validation`, `test`, or another name of its own such as `test2`."""
    valence: float | None = None
    """Mean rating, on the corpus' own scale (`rating_scale`); likewise `arousal` and `dominance`."""
    arousal: float | None = None
    dominance: float | None = None
    votes: tuple[tuple[str, float], ...] | None = None
    """(label, number of raters who chose it), sorted by label, where the corpus publishes them; labels in the
    vocabulary, or `other`."""
    set_aside: str | None = None
    """Why the corpus itself gives this clip no label (raters did not agree, a blind test set, ...); `class_id` is ""
    then. Such clips take no part, and are counted by reason in every run record."""


RATINGS = ("valence", "arousal", "dominance")
"""Dimensions of ratings that a clip can have."""


class Corpus(Protocol):
    """The members of every corpus module. Some have more, see `label_sets`, `speakers_known` and `rating_scale`."""

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
    EXPECTED_CLIPS: int | None
    """Of the complete corpus; None where it is not known or differs between releases."""
    EXPECTED_SPEAKERS: int | None
    LAYOUT: Literal["confirmed", "unverified"]
    """Whether layout and naming were confirmed by a public description; an unverified reader says so everywhere."""
    FILE_NAMES: str
    """Regular expression that the end of a clip's path (POSIX, without suffix) matches: from a folder or the file name
    on. It tells a corpus from another one in a folder of its name."""

    def read(self, root: Path) -> list[ClipRow]:
        """Rows of all clips found under `root`, sorted by path; names that are not of the corpus raise BadInput.

        A corpus with several label sets takes a second argument `labels: str`.
        """
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
    return _module(name)


def _module(name: str) -> Corpus:
    return cast(Corpus, importlib.import_module(f"{__name__}.{name}"))


def label_sets(corpus: Corpus) -> dict[str, str]:
    """Names of a corpus' label sets (`LABEL_SETS`, the first is the default) and what each is; {} where it has one."""
    return getattr(corpus, "LABEL_SETS", {})


def speakers_known(corpus: Corpus) -> bool:
    """Whether the corpus says who speaks (`SPEAKERS_KNOWN`, true when absent)."""
    return getattr(corpus, "SPEAKERS_KNOWN", True)


def rating_scale(corpus: Corpus) -> tuple[float, float] | None:
    """Lowest and highest value of valence, arousal and dominance (`RATING_SCALE`); None without ratings."""
    return getattr(corpus, "RATING_SCALE", None)


def read(corpus: Corpus, root: Path, labels: str | None = None) -> list[ClipRow]:
    """Rows of a corpus, with one of its label sets.

    Args:
        corpus: as of `get`
        root: its folder
        labels: a label set; the corpus' first when None

    Raises:
        BadInput: an unknown label set, or a folder that does not hold this corpus
    """
    sets = label_sets(corpus)
    if labels is not None and labels not in sets:
        what = f"expected one of {', '.join(sets)}" if sets else "the corpus has one label set only; leave the key out"
        raise BadInput(f"corpus '{corpus.NAME}': labels: '{labels}' is not valid; {what}")
    try:
        if labels is None:
            return corpus.read(root)
        return cast(ModuleType, corpus).read(root, labels=labels)  # type: ignore[no-any-return]
    except BadInput as error:
        if not (root.is_dir() and (hint := resemblance(root, corpus.NAME))):
            raise
        raise BadInput(f"{error}\n{hint}") from error


@dataclass(frozen=True)
class Likeness:
    """How far the audio of a folder is named like a corpus."""

    corpus: str
    fits: int
    """Files whose name is of the corpus."""
    files: int
    """Files looked at."""


def looks_like(root: Path) -> list[Likeness]:
    """The corpora whose file names occur in a folder, the best fitting first; ties by name.

    Args:
        root: any folder

    Raises:
        BadInput: no such folder, or one that cannot be read
    """
    from ser_scripts.audio.decode import SUFFIXES
    from ser_scripts.corpora._files import walk

    bare = sorted(
        str(file.relative_to(root).with_suffix("").as_posix()) for file in walk(root) if file.suffix.lower() in SUFFIXES
    )
    bare = bare[:: max(1, len(bare) // _LOOKED_AT)]
    found = [Likeness(name, sum(map(bool, map(matcher(_module(name)), bare))), len(bare)) for name in names()]
    return sorted((one for one in found if one.fits), key=lambda one: (-one.fits, one.corpus))


def resemblance(root: Path, expected: str) -> str:
    """A sentence that says which other corpus a folder looks like; "" when no other one fits better.

    Args:
        root: a folder that could not be read, or not fully
        expected: the corpus that it was read as
    """
    found = looks_like(root)
    own = max((one.fits for one in found if one.corpus == expected), default=0)
    if not found or found[0].fits <= max(own, _ALIKE * found[0].files):
        return ""
    alike = [one.corpus for one in found if one.fits == found[0].fits]
    titles = " or ".join(f"{_module(name).TITLE} ('{name}')" for name in alike)
    return f"It looks like {titles}: {found[0].fits} of {found[0].files} names fit."


def matcher(corpus: Corpus) -> Callable[[str], re.Match[str] | None]:
    """Matches a path without suffix against a corpus' naming, as `_files.match_names` does."""
    return re.compile(rf"(?:^|.*/)(?:{corpus.FILE_NAMES})$").match
