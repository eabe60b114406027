"""EEKK, the Estonian Emotional Speech Corpus: one woman reads 1164 sentences in three emotions and neutrally.

Layout: `13721.wav` with `13721.TextGrid` (Praat), whose tier `emotion` holds the label and tier `sentence` the text, in
one folder of the archive ekorpus; or clips sorted into one folder for each emotion, which then is the label. File names
mean nothing. The corpus' page speaks of 1234 sentences, the archive holds 1164.
The label is what listeners heard: the reader was not told to act, and read texts that suggest an emotion.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, listed, match_names, read_text, walk
from ser_scripts.errors import BadInput

NAME = "eekk"
TITLE = "EEKK, Estonian Emotional Speech Corpus"
LANGUAGE = "et"
LICENCE = "CC BY 4.0 (one copy's badge says CC BY-NC)"
CITATION = (
    "R. Altrov, H. Pajupuu: Estonian Emotional Speech Corpus: Theoretical base and implementation. Proc. 4th "
    "International Workshop on Corpora for Research on Emotion, Sentiment and Social Signals (ES3), pp. 50-53, 2012"
)
SOURCE = "https://doi.org/10.15155/3-00-0000-0000-0000-0001AL (ekorpus.zip)"
LABELS = {
    "anger": "angry",
    "joy": "happy",
    "neutral": "neutral",
    "sadness": "sad",
}
EXPECTED_CLIPS = 1164
EXPECTED_SPEAKERS = 1
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"\d{2,6}"

_READER = "reader"
_TIERS = ("IntervalTier", "TextTier")


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`, described by their TextGrids or their folders."""
    clips = find_clips(root)
    match_names(root, clips, FILE_NAMES, title=TITLE, rule="names like 13721")
    folders = {stem: PurePosixPath(path).parent.name for stem, path in clips.items()}
    grids = {file.stem: file for file in walk(root) if file.suffix.lower() == ".textgrid"}
    if bare := [clips[stem] for stem, name in folders.items() if name not in LABELS and stem not in grids]:
        raise BadInput(
            f"{root}: {len(bare)} clips have no TextGrid of their name, nor a folder named {', '.join(LABELS)}: "
            f"{listed(bare)}"
        )
    return [_row(path, folders[stem], grids.get(stem)) for stem, path in clips.items()]


def expected_stems(root: Path) -> list[str] | None:
    """None: no list of the clips is published."""
    return None


def _row(path: str, folder: str, grid: Path | None) -> ClipRow:
    marks = _first_marks(grid) if grid is not None else {}
    emotion = folder if folder in LABELS else marks.get("emotion", "")
    if emotion not in LABELS:
        raise BadInput(f"{grid}: the tier 'emotion' begins with {emotion!r}; valid: {', '.join(LABELS)}")
    return ClipRow(
        path=path, class_id=LABELS[emotion], actor=_READER, gender="female", sentence=marks.get("sentence") or None
    )


def _first_marks(grid: Path) -> dict[str, str]:
    """The first mark of each tier of a TextGrid, by the tier's name in lower case.

    The long and the short text format have the same quoted texts in the same order: of each tier its class, its name,
    and its marks.
    """
    quoted = re.findall(r'"((?:[^"]|"")*)"', read_text(grid, fallback="latin-1"))
    starts = [place for place, text in enumerate(quoted) if text in _TIERS]
    return {
        quoted[place + 1].lower(): quoted[place + 2].replace('""', '"').strip()
        for place in starts
        if place + 2 < len(quoted) and quoted[place + 2] not in _TIERS
    }
