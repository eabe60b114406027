"""EmoDB: ten German actors speak ten sentences in seven emotions, in an anechoic room.

Layout: the folder `wav` of the release (or its clips at any depth). The name of a clip says everything:
`03a01Fa` is actor 03, sentence a01, emotion F (the German initial), take a. Actors 03, 10, 11, 12 and 15 are men.
The label is the emotion that the actor was asked to play.

Only clips that 80 % of the listeners recognised and found natural were released, so the grid is uneven: 127 angry, 81
bored, 79 neutral, 71 happy, 69 fearful, 62 sad, 46 disgusted. Actor 08 has no disgust, 03 and 10 have one clip of it,
11 and 12 two: folds of leave-one-speaker-out lack a class. With N = 0.8 there are 400 distinct splits, but only 25
distinct test sets. Clips of other releases or takes than these 535 are refused, so that results stay comparable.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import check_names, find_clips

NAME = "emodb"
TITLE = "EmoDB, Berlin Database of Emotional Speech"
LANGUAGE = "de"
LICENCE = "CC0-1.0 in its authors' current release (another listing says CC BY 4.0: cite it)"
CITATION = (
    "F. Burkhardt, A. Paeschke, M. Rolfes, W. F. Sendlmeier, B. Weiss: A database of German emotional speech. "
    "Proc. Interspeech 2005, pp. 1517-1520"
)
SOURCE = "http://emodb.bilderbar.info/ (535 clips)"
LABELS = {
    "W": "angry",
    "L": "bored",
    "E": "disgusted",
    "A": "fearful",
    "F": "happy",
    "T": "sad",
    "N": "neutral",
}
EXPECTED_CLIPS = 535
EXPECTED_SPEAKERS = 10
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"\d\d[ab]\d\d[WLEAFTN][a-z]"

_MALE = frozenset({"03", "10", "11", "12", "15"})


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root)
    check_names(root, clips, expected_stems(root), title=TITLE, rule="names like 03a01Fa, 535 clips")
    return [
        ClipRow(
            path=path,
            class_id=LABELS[stem[5]],
            actor=stem[:2],
            gender="male" if stem[:2] in _MALE else "female",
            sentence=stem[2:5],
        )
        for stem, path in clips.items()
    ]


def expected_stems(root: Path) -> list[str]:
    """The stems of the 535 clips, sorted; the same for every `root`."""
    text = resources.files("ser_scripts.corpora").joinpath("data/emodb_stems.json").read_text(encoding="utf-8")
    takes: dict[str, dict[str, str]] = json.loads(text)
    return sorted(
        actor + sentence + take
        for actor, sentences in takes.items()
        for sentence, all_takes in sentences.items()
        for take in all_takes.split()
    )
