"""BAUM-1: 31 Turkish speakers, acted and spontaneous, in thirteen mental states.

Layout: the release holds videos: take their audio out under the same names. `BAUM1a_MP4_all/s001/S001_001` (acted) and
`BAUM1s_MP4_all/s001/S001_006` (spontaneous): set, subject, subject and clip; no number stands in both sets. The labels
are in two workbooks: save them as `Annotations_BAUM1a.csv` and `Annotations_BAUM1s.csv`. In them the fourth column is
the clip and the fifth the state in words, as users read them; a column `Gender` is used where there is one. The titles
of the columns are not known here, which is why this reader is unverified. Instead of the tables, clips may be sorted
into one folder for each state (`Anger/S001_001.wav`), which then is the label.

Clips without a row are set aside. The label of a spontaneous clip is what raters saw and heard (the subjects watched
pictures and films and spoke about them), that of an acted one was played. Papers count 273 acted clips, and 1184 or
1222 spontaneous ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, find_optional_table, match_names, parse_gender, read_table
from ser_scripts.errors import BadInput

NAME = "baum1"
TITLE = "BAUM-1, spontaneous and acted affective speech (audio)"
LANGUAGE = "tr"
LICENCE = "its own licence: academic use, on application to the authors"
CITATION = (
    "S. Zhalehpour, O. Onder, Z. Akhtar, C. E. Erdem: BAUM-1: A Spontaneous Audio-Visual Face Database of Affective "
    "and Mental States. IEEE Transactions on Affective Computing 8(3), pp. 300-313, 2017. "
    "doi:10.1109/TAFFC.2016.2553038"
)
SOURCE = "from the authors (BAUM1a_MP4_all, BAUM1s_MP4_all, Annotations_BAUM1a.xlsx, Annotations_BAUM1s.xlsx)"
LABELS = {
    "Anger": "angry",
    "Boredom": "bored",
    "Bothered": "bothered",
    "Concentrating": "concentrating",
    "Contempt": "contempt",
    "Disgust": "disgusted",
    "Fear": "fearful",
    "Happiness": "happy",
    "Interest": "interested",
    "Neutral": "neutral",
    "Sadness": "sad",
    "Surprise": "surprised",
    "Thinking": "thinking",
    "Unsure": "unsure",
}
EXPECTED_CLIPS = None
EXPECTED_SPEAKERS = 31
LAYOUT: Literal["confirmed", "unverified"] = "unverified"
FILE_NAMES = r"(S\d{3})_\d{3}"

_TABLES = {"a": "Annotations_BAUM1a.csv", "s": "Annotations_BAUM1s.csv"}
_STYLES = {"a": "acted", "s": "spontaneous"}
_BEGINNINGS = {word[: 4 if word.startswith("Con") else 3].lower(): label for word, label in LABELS.items()}
"""How the words of the states begin, by which users tell them apart; the states' full spelling may go on."""
_SET = re.compile(r"BAUM.?1([as])", re.IGNORECASE)
_CLIP_COLUMN, _STATE_COLUMN = 3, 4


@dataclass(frozen=True)
class _Annotation:
    """What a table says of one clip."""

    class_id: str
    gender: str
    style: str


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`, described by the two tables or by folders."""
    clips = find_clips(root)
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule="names like S001_001")
    annotations = _annotations(root)
    if not annotations and any(PurePosixPath(path).parent.name not in LABELS for path in clips.values()):
        raise BadInput(
            f"{root} holds neither {' nor '.join(_TABLES.values())} (saved from the workbooks of these names, .xlsx), "
            f"nor all clips in folders {', '.join(LABELS)}"
        )
    return [_row(clips[stem], match[1], annotations.get(stem)) for stem, match in matches.items()]


def expected_stems(root: Path) -> list[str] | None:
    """The stems of all clips in the tables, sorted; None unless both are there."""
    if any(find_optional_table(root, name) is None for name in _TABLES.values()):
        return None
    return sorted(_annotations(root))


def _row(path: str, actor: str, annotation: _Annotation | None) -> ClipRow:
    style = annotation.style if annotation else None
    if style is None and (part := _SET.search(path)):
        style = _STYLES[part[1].lower()]
    class_id = LABELS.get(PurePosixPath(path).parent.name) or (annotation.class_id if annotation else "")
    return ClipRow(
        path=path,
        class_id=class_id,
        actor=actor,
        gender=annotation.gender if annotation else "unknown",
        style=style,
        set_aside=None if class_id else "no row in the annotation tables",
    )


def _annotations(root: Path) -> dict[str, _Annotation]:
    """Rows of those tables that are there, by stem."""
    found: dict[str, _Annotation] = {}
    for part, name in _TABLES.items():
        file = find_optional_table(root, name)
        if file is None:
            continue
        columns, rows = read_table(file)
        if len(columns) <= _STATE_COLUMN:
            raise BadInput(
                f"{file}: the fourth column should be the clip, the fifth its state; the header has {columns}"
            )
        for line, cells in rows:
            where = f"{file} line {line}"
            stem, word = cells[columns[_CLIP_COLUMN]], cells[columns[_STATE_COLUMN]]
            if not re.fullmatch(r"S\d{3}_\d{3}", stem):
                raise BadInput(f"{where}: the fourth column is {stem!r}, no clip's name such as S001_001")
            labels = [label for beginning, label in _BEGINNINGS.items() if word.lower().startswith(beginning)]
            if len(labels) != 1:
                raise BadInput(f"{where}: the fifth column is {word!r}, none of {', '.join(LABELS)}")
            if stem in found:
                raise BadInput(f"{where}: clip {stem!r} stands there twice")
            gender = parse_gender(cells["gender"], where) if "gender" in columns else "unknown"
            found[stem] = _Annotation(labels[0], gender, _STYLES[part])
    return found
