"""nEMO: nine Polish actors, women and men, speak ninety sentences in six emotions.

Layout: `samples` with the clips and `data.tsv` beside it (both at any depth); the columns used are file_id
(`EB0_anger_6.wav`: speaker, emotion, sentence), emotion, raw_text, speaker_id and gender. In the other release, parquet
files, the clips are no files.
The label is the emotion that the actor was asked to play. 4481 of the 4860 combinations were released.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

from ser_scripts.audio.decode import SUFFIXES
from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import check_names, find_clips, find_table, listed, parse_gender, read_table
from ser_scripts.errors import BadInput

NAME = "nemo"
TITLE = "nEMO, a dataset of emotional speech in Polish"
LANGUAGE = "pl"
LICENCE = "CC BY-NC-SA 4.0"
CITATION = "I. Christop: nEMO: Dataset of Emotional Speech in Polish. Proc. LREC-COLING 2024 (2024.lrec-main.1059)"
SOURCE = "https://github.com/amu-cai/nEMO (samples and data.tsv)"
LABELS = {
    "anger": "angry",
    "fear": "fearful",
    "happiness": "happy",
    "neutral": "neutral",
    "sadness": "sad",
    "surprised": "surprised",
}
EXPECTED_CLIPS = 4481
EXPECTED_SPEAKERS = 9
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"[A-Z]{2}\d_(anger|fear|happiness|neutral|sadness|surprised)_\d+"

_COLUMNS = ("file_id", "emotion", "speaker_id", "gender")


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`, described by data.tsv."""
    table = _table(root)
    clips = find_clips(root)
    check_names(root, clips, table, title=TITLE, rule="the file_id in data.tsv")
    return [
        ClipRow(
            path=path,
            class_id=LABELS[table[stem]["emotion"]],
            actor=table[stem]["speaker_id"],
            gender=table[stem]["gender"],
            sentence=table[stem].get("raw_text") or None,
        )
        for stem, path in clips.items()
    ]


def expected_stems(root: Path) -> list[str]:
    """The stems of all clips in data.tsv, sorted."""
    return sorted(_table(root))


def _table(root: Path) -> dict[str, dict[str, str]]:
    """Rows of data.tsv by the stem of their file, genders in our words; a stem, since the audio may be re-encoded."""
    file = find_table(root, "data.tsv")
    table: dict[str, dict[str, str]] = {}
    for line, cells in read_table(file, _COLUMNS)[1]:
        name = PurePosixPath(cells["file_id"])
        stem = name.stem if name.suffix.lower() in SUFFIXES else name.name
        if empty := [column for column in _COLUMNS if not cells[column]]:
            raise BadInput(f"{file} line {line}: {listed(empty)} is empty")
        if cells["emotion"] not in LABELS:
            raise BadInput(f"{file} line {line}: emotion {cells['emotion']!r} is not valid; valid: {', '.join(LABELS)}")
        if stem in table:
            raise BadInput(f"{file} line {line}: file_id {cells['file_id']!r} stands there twice")
        table[stem] = {**cells, "gender": parse_gender(cells["gender"], f"{file} line {line}")}
    return table
