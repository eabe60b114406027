"""CREMA-D: 91 North American actors speak twelve sentences in six emotions.

Layout: `AudioWAV` with the clips (at any depth; `AudioMP3` beside it repeats them and is passed over),
`VideoDemographics.csv` and `processedResults/tabulatedVotes.csv` beside that folder or in it. The name of a clip is
actor, sentence, emotion, intensity: `1001_IEO_ANG_HI`. Sentence IEO was spoken at three intensities (LO, MD, HI), the
others at one (XX). Twenty clips of the full grid were never released, and one is named `1040_ITH_SAD_X`. Copies that
lack VideoDemographics.csv take the genders from the same column packaged here.

The emotion in the name is the intended one, which the actor was asked to play: label set `intended`. Four to twelve
raters chose one of the six emotions for each clip, in three modalities: first digit 1 of the table's row name is voice
only, 2 face only, 3 audio-visual. `perceived_audio` and `perceived_audiovisual` take the emotion with most votes in
that modality; where several share the most votes (644 and 420 clips), the clip is set aside. Most clips that were
heard but not seen were called neutral (3897 of 7442), so the two kinds of label differ much: they agree in 3099 clips
by voice, in 5374 audio-visually.
The manifest's votes are those of the voice for `intended` and `perceived_audio`, audio-visual for
`perceived_audiovisual`; without the table of votes there are none, and `intended` alone can be read.

`1076_MTI_SAD_XX` is silent. Three pairs of clips with different intended labels are byte-identical in the wav release:
1017_IWW ANG and FEA, 1006_TIE HAP and NEU, 1013_WSI DIS and SAD. All seven stop a run until `allow_dropped` names
them. Figures from a copy at a lower sample rate or bit rate are not comparable with those from the wav release.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import (
    check_names,
    find_clips,
    find_optional_table,
    listed,
    read_genders,
    read_table,
)
from ser_scripts.errors import BadInput

NAME = "cremad"
TITLE = "CREMA-D, Crowd-sourced Emotional Multimodal Actors Dataset"
LANGUAGE = "en"
LICENCE = "ODbL 1.0 (database) and DbCL 1.0 (contents)"
CITATION = (
    "H. Cao, D. G. Cooper, M. K. Keutmann, R. C. Gur, A. Nenkova, R. Verma: CREMA-D: Crowd-Sourced Emotional "
    "Multimodal Actors Dataset. IEEE Transactions on Affective Computing 5(4), pp. 377-390, 2014"
)
SOURCE = (
    "https://github.com/CheyneyComputerScience/CREMA-D (AudioWAV, VideoDemographics.csv, "
    "processedResults/tabulatedVotes.csv)"
)
LABELS = {
    "ANG": "angry",
    "DIS": "disgusted",
    "FEA": "fearful",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
EXPECTED_CLIPS = 7442
EXPECTED_SPEAKERS = 91
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"1\d{3}_[A-Z]{3}_(ANG|DIS|FEA|HAP|NEU|SAD)_(XX?|LO|MD|HI)"

LABEL_SETS = {
    "intended": "the emotion that the actor was asked to play",
    "perceived_audio": "the emotion with most votes of raters who heard the clip",
    "perceived_audiovisual": "the emotion with most votes of raters who heard and saw the clip",
}

_MODALITY = {"intended": "1", "perceived_audio": "1", "perceived_audiovisual": "3"}
_VOTE_COLUMNS = {LABELS[code]: code[0].lower() for code in LABELS}
_INTENSITY = {"LO": "low", "MD": "medium", "HI": "high"}
_TIED = "raters' votes are tied"
_ACTORS = [str(number) for number in range(1001, 1092)]
_SENTENCES = ("DFA", "IOM", "ITH", "ITS", "IWL", "IWW", "MTI", "TAI", "TIE", "TSI", "WSI")
_ABSENT = (
    {f"{take}_{emotion}_XX" for take in ("1008_WSI", "1009_MTI", "1019_ITH") for emotion in LABELS}
    | {"1002_TIE_NEU_XX", "1076_ITS_NEU_XX"}
    | {"1040_ITH_SAD_XX"}  # released as 1040_ITH_SAD_X
)


def read(root: Path, labels: str = "intended") -> list[ClipRow]:
    """Rows of the clips under `root`; genders come from VideoDemographics.csv or, where a copy of the corpus lacks it,
    from the same column packaged here; votes from tabulatedVotes.csv."""
    clips = find_clips(root)
    check_names(root, clips, expected_stems(root), title=TITLE, rule="names like 1001_IEO_ANG_HI, 7442 clips")
    demographics = find_optional_table(root, "VideoDemographics.csv")
    if demographics is None:
        genders = _packaged_genders()
    else:
        speakers = {stem.split("_")[0] for stem in clips}
        genders = read_genders(demographics, speakers, speaker_column="actorid", gender_column="sex")
    table = find_optional_table(root, "tabulatedVotes.csv")
    if table is None and labels != "intended":
        raise BadInput(
            f"{root} holds no tabulatedVotes.csv (processedResults/ of the release), which the labels '{labels}' of "
            f"{TITLE} come from; add it, or use the labels 'intended'"
        )
    votes = _votes(table, clips, _MODALITY[labels]) if table is not None else {}
    return [_row(path, stem, labels, genders, votes.get(stem)) for stem, path in clips.items()]


def expected_stems(root: Path) -> list[str]:
    """The stems of the 7442 clips, sorted; the same for every `root`."""
    once = {
        f"{actor}_{sentence}_{emotion}_XX" for actor in _ACTORS for sentence in _SENTENCES for emotion in LABELS
    } | {f"{actor}_IEO_NEU_XX" for actor in _ACTORS}
    graded = {
        f"{actor}_IEO_{emotion}_{intensity}"
        for actor in _ACTORS
        for emotion in LABELS
        for intensity in ("LO", "MD", "HI")
        if emotion != "NEU"
    }
    return sorted((once | graded | {"1040_ITH_SAD_X"}) - _ABSENT)


def _packaged_genders() -> dict[str, str]:
    text = resources.files("ser_scripts.corpora").joinpath("data/cremad_genders.json").read_text(encoding="utf-8")
    content: dict[str, str] = json.loads(text)
    return {actor: gender for gender in ("female", "male") for actor in content[gender].split()}


def _row(
    path: str, stem: str, labels: str, genders: Mapping[str, str], votes: tuple[tuple[str, float], ...] | None
) -> ClipRow:
    actor, sentence, emotion, intensity = stem.split("_")
    class_id, set_aside = LABELS[emotion], None
    if labels != "intended" and votes is not None:
        most = max(count for _, count in votes)
        winners = [label for label, count in votes if count == most]
        class_id, set_aside = (winners[0], None) if len(winners) == 1 else ("", _TIED)
    return ClipRow(
        path=path,
        class_id=class_id,
        actor=actor,
        gender=genders[actor],
        sentence=sentence,
        intensity=_INTENSITY.get(intensity),
        votes=votes,
        set_aside=set_aside,
    )


def _votes(file: Path, stems: Mapping[str, str], modality: str) -> dict[str, tuple[tuple[str, float], ...]]:
    """The votes of one modality, of each of the clips."""
    found: dict[str, tuple[tuple[str, float], ...]] = {}
    columns, rows = read_table(file, ("filename", *_VOTE_COLUMNS.values()))
    for line, cells in rows:
        if not re.fullmatch(r"[123]\d{5}", cells[columns[0]]):
            raise BadInput(f"{file} line {line}: row name {cells[columns[0]]!r} is not modality 1 to 3 and five digits")
        if not cells[columns[0]].startswith(modality):
            continue
        stem = cells["filename"] if cells["filename"] != "1040_ITH_SAD_XX" else "1040_ITH_SAD_X"
        if stem in found:
            raise BadInput(f"{file} line {line}: {cells['filename']!r} stands there twice for modality {modality}")
        for column in _VOTE_COLUMNS.values():
            if not cells[column].isdecimal():
                raise BadInput(f"{file} line {line}: {column.upper()} is {cells[column]!r}, not a number of votes")
        counts = {label: float(cells[column]) for label, column in _VOTE_COLUMNS.items()}
        if not any(counts.values()):
            raise BadInput(f"{file} line {line}: {cells['filename']!r} has no votes")
        found[stem] = tuple(sorted(counts.items()))
    if absent := stems.keys() - found.keys():
        raise BadInput(f"{file}: {len(absent)} clips have no row of modality {modality}: {listed(absent)}")
    return found
