"""SAVEE: four British men speak TIMIT sentences in seven emotions, filmed and recorded at the University of Surrey.

Layout: `AudioData` with one folder per speaker (`DC`, `JE`, `JK`, `KL`), whose clips repeat their names: `DC/a01.wav`
and `KL/a01.wav`. Copies in one folder name them `DC_a01.wav`. Both are read, at any depth. The letters are the emotion
(a, d, f, h, n, sa, su), the digits count the sentences of that emotion: 15 of each, 30 neutral ones, 120 clips per
speaker. Three sentences were spoken in every emotion, under one number each; so `a01` is one text, but a text may have
several numbers. The label is the emotion that the speaker, no actor by profession, was asked to show.
All speakers are men.
"""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Literal

from ser_scripts.audio.decode import SUFFIXES
from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, match_names, refuse_copies, walk

NAME = "savee"
TITLE = "SAVEE, Surrey Audio-Visual Expressed Emotion database"
LANGUAGE = "en"
LICENCE = "its own licence: use within the organisation that registered for it, no redistribution"
CITATION = (
    "S. Haq, P. J. B. Jackson: Multimodal Emotion Recognition. In W. Wang (ed.), Machine Audition: Principles, "
    "Algorithms and Systems, IGI Global, pp. 398-423, 2010. doi:10.4018/978-1-61520-919-4"
)
SOURCE = "http://kahlan.eps.surrey.ac.uk/savee/ (registration; AudioData)"
LABELS = {
    "a": "angry",
    "d": "disgusted",
    "f": "fearful",
    "h": "happy",
    "n": "neutral",
    "sa": "sad",
    "su": "surprised",
}
EXPECTED_CLIPS = 480
EXPECTED_SPEAKERS = 4
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
_SENTENCE = r"(?:sa|su|[adfh])(?:0[1-9]|1[0-5])|n(?:0[1-9]|[12]\d|30)"
FILE_NAMES = rf"(DC|JE|JK|KL)[_/]({_SENTENCE})"

_SPEAKERS = ("DC", "JE", "JK", "KL")


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root, by_path=True)
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule="names like DC/a01 or DC_a01, 480 clips")
    refuse_copies(root, clips, {key: "".join(match.groups()) for key, match in matches.items()})
    return [_row(clips[key], *match.groups()) for key, match in matches.items()]


def expected_stems(root: Path) -> list[str]:
    """The 480 clips, sorted: as `DC/a01` where `root` holds them in the speakers' folders, else as `DC_a01`."""
    joint = "/" if _in_folders(root) else "_"
    sentences = [f"{emotion}{number:02d}" for emotion in LABELS for number in range(1, 31 if emotion == "n" else 16)]
    return sorted(joint.join(names) for names in product(_SPEAKERS, sentences))


def _in_folders(root: Path) -> bool:
    bare = re.compile(_SENTENCE)
    return root.is_dir() and any(bare.fullmatch(file.stem) for file in walk(root) if file.suffix.lower() in SUFFIXES)


def _row(path: str, speaker: str, sentence: str) -> ClipRow:
    return ClipRow(path=path, class_id=LABELS[sentence[:-2]], actor=speaker, gender="male", sentence=sentence)
