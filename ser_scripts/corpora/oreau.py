"""Oréau: 32 French speakers, no professionals, say sentences of the classroom in seven emotions.

Layout: `OréauFR_01` (502 clips) and `OréauFR_02` (the 434 of them that listeners recognised), each with `f` and `m`
for women and men, and in them one folder per emotion (`sessc`, `sessd`, ...); clips at any depth are read.
`11a04Ca` is speaker 11, utterance a04, emotion C (colère); what the letter at the end means is not published.
The corpus is here defined as its second version: where both lie side by side, `OréauFR_01` is passed over, and where
only the first is there, it is read. The label is the emotion that the speaker was asked to show.
Every emotion has its own 10 to 13 utterances, so the words alone give the emotion away: see what a text model would
reach before believing a figure. The sentence is named with the emotion's letter (`a04C`).
Gender comes from the folder `f` or `m`; where the clips lie in one folder, from a table `actors.csv` (first column the
speaker, and a column `gender`) in it or right above; else it is unknown.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import (
    find_clips,
    find_optional_table,
    match_names,
    parse_gender,
    read_table,
    refuse_copies,
)
from ser_scripts.errors import BadInput

NAME = "oreau"
TITLE = "Oréau, French emotional speech database"
LANGUAGE = "fr"
LICENCE = "CC BY 4.0"
CITATION = (
    "L. Kerkeni, C. Cleder, Y. Serrestou, K. Raoof: French Emotional Speech Database - Oréau. Zenodo, 2020. "
    "doi:10.5281/zenodo.4405783"
)
SOURCE = "https://zenodo.org/records/4405783"
LABELS = {
    "C": "angry",
    "D": "disgusted",
    "J": "happy",
    "N": "neutral",
    "P": "fearful",
    "S": "surprised",
    "T": "sad",
}
EXPECTED_CLIPS = 434
EXPECTED_SPEAKERS = 32
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"(\d\d)([a-z]\d\d)([CDJNPST])[a-z]?"

_VERSION = re.compile(r"(?:.*/)?[^/]*FR_0([12])/.*")
_GENDER_FOLDER = re.compile(r"(?:.*/)?([fm])/sess[cdjnpst]/[^/]+")


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root, by_path=True)
    versions = {key: match[1] for key in clips if (match := _VERSION.fullmatch(key))}
    if "2" in versions.values():
        clips = {key: path for key, path in clips.items() if versions.get(key) != "1"}
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule="names like 11a04Ca")
    refuse_copies(root, clips, {key: PurePosixPath(key).name for key in clips})
    genders = _genders(root)
    rows = []
    for key, match in matches.items():
        speaker, utterance, emotion = match.groups()
        folder = _GENDER_FOLDER.fullmatch(key)
        rows.append(
            ClipRow(
                path=clips[key],
                class_id=LABELS[emotion],
                actor=speaker,
                gender=parse_gender(folder[1], clips[key]) if folder else genders.get(speaker, "unknown"),
                sentence=utterance + emotion,
            )
        )
    return rows


def expected_stems(root: Path) -> None:
    """Not known: not every speaker says every sentence."""
    return None


def _genders(root: Path) -> dict[str, str]:
    """Gender by speaker from actors.csv; a speaker without one, and every speaker without the table, is absent."""
    file = find_optional_table(root, "actors.csv")
    if file is None:
        return {}
    columns, table = read_table(file, ("gender",))
    genders: dict[str, str] = {}
    for line, cells in table:
        speaker = cells[columns[0]]
        if not speaker.isdecimal():
            raise BadInput(f"{file} line {line}: speaker {speaker!r} is no number; valid: 01, 02, ...")
        if cells["gender"]:
            genders[f"{int(speaker):02d}"] = parse_gender(cells["gender"], f"{file} line {line}")
    return genders
