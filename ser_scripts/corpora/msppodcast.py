"""MSP-Podcast: speaking turns cut from podcasts, natural speech, rated by crowd workers.

Layout: `Audios` with the turns (at any depth), `Labels/labels_consensus.csv` (FileName, EmoClass, EmoAct, EmoVal,
EmoDom, SpkrID, Gender, Split_Set; spelt `labels_concensus.csv` before release 1.10) and `Labels/labels_detailed.csv`,
which may be absent. File names mean nothing but the podcast and the turn: `MSP-PODCAST_0001_0008`. What lies in
`Previous_releases_information` is passed over.

The label is what most of at least five workers chose who heard the turn: A, C, D, F, H, N, S, U, or O for a word of
their own. X, no agreement, sets the turn aside. Ratings are means on a scale of 1 to 7. Votes are the primary emotions
of labels_detailed.csv, one per worker, in either of its forms (a column EmoClass_Major, or EmoDetail that begins with
`WORKER00000001; Angry; `); what is none of the eight emotions is a word of the worker's own, and counts as `other`.

Sides of the release: Train, Development, Test1, Test2, Test3, here train, validation, test1, test2, test3. Test3
(`MSP-PODCAST_test3_0001`) has neither labels nor speakers and is set aside. Speakers of one test set may be in another
one, so tests on them are not independent of each other; train, development and test are meant to share none. Some
turns of train have no speaker (`Unknown`): their actor is "", so that a run that trains on them is marked SPEAKERS
UNKNOWN, since nobody can check who they are. Use the release's own sides: splits by speaker refuse such turns.
Releases differ in their clips (1.11: 151,654 turns; 1.12: 207,136) and in some sides, so name the release you used.
Transcripts are not read.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import (
    check_names,
    find_clips,
    find_optional_table,
    find_table,
    match_names,
    parse_gender,
    read_table,
)
from ser_scripts.errors import BadInput

NAME = "msppodcast"
TITLE = "MSP-Podcast, natural emotional speech from podcasts"
LANGUAGE = "en"
LICENCE = "its own licence: academic use under an agreement with the University of Texas at Dallas, or a commercial one"
CITATION = (
    "R. Lotfian, C. Busso: Building Naturalistic Emotionally Balanced Speech Corpus by Retrieving Emotional Speech "
    "From Existing Podcast Recordings. IEEE Transactions on Affective Computing 10(4), pp. 471-483, 2019. "
    "doi:10.1109/TAFFC.2017.2736999"
)
SOURCE = "https://lab-msp.com/MSP/MSP-Podcast.html (on application)"
LABELS = {
    "A": "angry",
    "C": "contempt",
    "D": "disgusted",
    "F": "fearful",
    "H": "happy",
    "N": "neutral",
    "O": "other",
    "S": "sad",
    "U": "surprised",
}
EXPECTED_CLIPS = None
EXPECTED_SPEAKERS = None
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"MSP-PODCAST_(?:\d{4,}|(test3))_\d{4,}(?:_\d{4,})?"
LABEL_SETS = {
    "all": "the eight primary emotions, and other",
    "8-class": "the eight primary emotions; other is set aside",
    "attributes": "all turns with ratings, for models that predict these: no agreement counts as other",
}
SPEAKERS_KNOWN = False
RATING_SCALE = (1.0, 7.0)

_COLUMNS = ("filename", "emoclass", "emoact", "emoval", "emodom", "spkrid", "gender", "split_set")
_PARTITIONS = {
    "train": "train",
    "development": "validation",
    "validation": "validation",
    "test1": "test1",
    "test2": "test2",
    "test3": "test3",
}
_WORDS = {
    "angry": "angry",
    "contempt": "contempt",
    "disgust": "disgusted",
    "fear": "fearful",
    "happy": "happy",
    "neutral": "neutral",
    "sad": "sad",
    "surprise": "surprised",
}
_DETAIL = re.compile(r"\s*(WORKER\w*)\s*;([^;]*);.*", re.DOTALL)
_Votes = tuple[tuple[str, float], ...]


def read(root: Path, labels: str = "all") -> list[ClipRow]:
    """Rows of the turns under `root`, described by labels_consensus.csv and labels_detailed.csv."""
    clips = find_clips(root)
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule="names like MSP-PODCAST_0001_0008")
    table = _consensus(root)
    blind = {stem for stem, match in matches.items() if match[1]}
    file = _consensus_file(root).name
    check_names(root, clips, blind | table.keys(), title=TITLE, rule=f"the names in {file}")
    votes = _votes(root)
    return [_row(path, table.get(stem), labels, votes.get(stem)) for stem, path in clips.items()]


def expected_stems(root: Path) -> list[str]:
    """The stems of all turns in labels_consensus.csv, sorted; those of Test3 do not stand there."""
    return sorted(_consensus(root))


def _row(path: str, cells: dict[str, str] | None, labels: str, votes: _Votes | None) -> ClipRow:
    if cells is None or _PARTITIONS[cells["split_set"].lower()] == "test3":
        return ClipRow(
            path=path, class_id="", actor="", gender="unknown", partition="test3", set_aside="blind test set (Test3)"
        )
    class_id, set_aside = LABELS.get(cells["emoclass"], ""), None
    if cells["emoclass"] == "X" and labels == "attributes":
        class_id = "other"
    elif cells["emoclass"] == "X":
        set_aside = "raters did not agree (X)"
    elif class_id == "other" and labels == "8-class":
        class_id, set_aside = "", "other is not among the labels '8-class'"
    return ClipRow(
        path=path,
        class_id=class_id,
        actor="" if cells["spkrid"].lower() in ("unknown", "") else cells["spkrid"],
        gender=parse_gender(cells["gender"], path),
        partition=_PARTITIONS[cells["split_set"].lower()],
        valence=float(cells["emoval"]),
        arousal=float(cells["emoact"]),
        dominance=float(cells["emodom"]),
        votes=votes,
        set_aside=set_aside,
    )


def _consensus_file(root: Path) -> Path:
    return find_optional_table(root, "labels_concensus.csv") or find_table(root, "labels_consensus.csv")


def _consensus(root: Path) -> dict[str, dict[str, str]]:
    """Rows of labels_consensus.csv by stem, checked."""
    file = _consensus_file(root)
    rows: dict[str, dict[str, str]] = {}
    for line, cells in read_table(file, _COLUMNS)[1]:
        where = f"{file} line {line}"
        stem = PurePosixPath(cells["filename"]).stem
        if stem in rows:
            raise BadInput(f"{where}: FileName {cells['filename']!r} stands there twice")
        if cells["split_set"].lower() not in _PARTITIONS:
            raise BadInput(
                f"{where}: Split_Set {cells['split_set']!r} is not valid; "
                "valid: Train, Development, Validation, Test1, Test2, Test3"
            )
        if _PARTITIONS[cells["split_set"].lower()] != "test3":
            if cells["emoclass"] != "X" and cells["emoclass"] not in LABELS:
                raise BadInput(
                    f"{where}: EmoClass {cells['emoclass']!r} is not valid; valid: {', '.join([*LABELS, 'X'])}"
                )
            parse_gender(cells["gender"], where)
            for column in ("EmoAct", "EmoVal", "EmoDom"):
                if not re.fullmatch(r"\d+(\.\d+)?", cells[column.lower()]):
                    raise BadInput(f"{where}: {column} is {cells[column.lower()]!r}, not a number from 1 to 7")
        rows[stem] = cells
    return rows


def _votes(root: Path) -> dict[str, _Votes]:
    """Votes for the primary emotion by stem; none where there is no labels_detailed.csv."""
    file = find_optional_table(root, "labels_detailed.csv")
    if file is None:
        return {}
    columns, rows = read_table(file, ("filename",))
    if not {"emoclass_major", "emodetail"} & set(columns):
        raise BadInput(f"{file}: column EmoClass_Major or EmoDetail is missing; the header has {', '.join(columns)}")
    counts: dict[str, Counter[str]] = {}
    for line, cells in rows:
        if (word := cells.get("emoclass_major")) is None:
            if (detail := _DETAIL.fullmatch(cells["emodetail"])) is None:
                raise BadInput(
                    f"{file} line {line}: EmoDetail is not `WORKER...; emotion; ...`: {cells['emodetail']!r}"
                )
            word = detail[2]
        votes = counts.setdefault(PurePosixPath(cells["filename"]).stem, Counter())
        votes[_WORDS.get(word.strip().lower(), "other")] += 1
    return {
        stem: tuple((label, float(count)) for label, count in sorted(votes.items())) for stem, votes in counts.items()
    }
