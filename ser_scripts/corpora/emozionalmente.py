"""Emozionalmente: 431 Italian amateurs speak eighteen sentences in seven emotions, at home.

Layout: `audio` with the clips and `metadata` with `samples.csv` (file_name, actor, emotion_expressed, and sentence
in the released table) and `users.csv` (username, gender, age); both at any depth. File names mean nothing.
`samples.csv` is the list of clips that must be there; both tables must each be there once.

The label is the emotion that the speaker was asked to play; raters reached a UAR of .66 on it. The speakers are 299
women, 131 men and 1 other, with 986 clips per emotion, 3.81 s on average. They differ much in their number of clips,
and few have every emotion: a split drawn per emotion leaks speakers.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

from ser_scripts.audio.decode import SUFFIXES
from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import (
    check_names,
    find_clips,
    find_table,
    listed,
    read_genders,
    read_table,
)
from ser_scripts.errors import BadInput

NAME = "emozionalmente"
TITLE = "Emozionalmente, a crowdsourced Italian corpus of simulated emotional speech"
LANGUAGE = "it"
LICENCE = "CC BY 4.0"
CITATION = (
    "F. Catania, J. W. Wilke, F. Garzotto: Emozionalmente: A Crowdsourced Corpus of Simulated Emotional Speech in "
    "Italian. IEEE Transactions on Audio, Speech and Language Processing 33, pp. 1142-1155, 2025. "
    "doi:10.1109/TASLPRO.2025.3540662"
)
SOURCE = "https://zenodo.org/records/12616095 (version 1.1: emozionalmente.zip, MD5 398c6502dd2b0e1e810f927c12897547)"
LABELS = {
    "anger": "angry",
    "joy": "happy",
    "sadness": "sad",
    "neutrality": "neutral",
    "fear": "fearful",
    "disgust": "disgusted",
    "surprise": "surprised",
}
EXPECTED_CLIPS = 6902
EXPECTED_SPEAKERS = 431
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"audio/[^/]+"


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`, described by samples.csv and users.csv."""
    samples = _samples(root)
    clips = find_clips(root)
    check_names(root, clips, samples, title=TITLE, rule="the names in samples.csv")
    users = find_table(root, "users.csv")
    genders = read_genders(
        users, {samples[stem]["actor"] for stem in clips}, speaker_column="username", gender_column="gender"
    )
    return [
        ClipRow(
            path=path,
            class_id=LABELS[samples[stem]["emotion_expressed"]],
            actor=samples[stem]["actor"],
            gender=genders[samples[stem]["actor"]],
            sentence=samples[stem].get("sentence") or None,
        )
        for stem, path in clips.items()
    ]


def expected_stems(root: Path) -> list[str]:
    """The stems of all clips in samples.csv, sorted."""
    return sorted(_samples(root))


def _samples(root: Path) -> dict[str, dict[str, str]]:
    """Rows of samples.csv by the stem of their file; a stem, since the audio may have been re-encoded."""
    file = find_table(root, "samples.csv")
    samples: dict[str, dict[str, str]] = {}
    for line, cells in read_table(file, ("file_name", "actor", "emotion_expressed"))[1]:
        name = PurePosixPath(cells["file_name"])
        stem = name.stem if name.suffix.lower() in SUFFIXES else name.name
        if empty := [column for column in ("file_name", "actor", "emotion_expressed") if not cells[column]]:
            raise BadInput(f"{file} line {line}: {listed(empty)} is empty")
        if cells["emotion_expressed"] not in LABELS:
            raise BadInput(
                f"{file} line {line}: emotion_expressed {cells['emotion_expressed']!r} is not valid; "
                f"valid: {', '.join(LABELS)}"
            )
        if stem in samples:
            raise BadInput(f"{file} line {line}: file_name {cells['file_name']!r} stands there twice")
        samples[stem] = cells
    return samples
