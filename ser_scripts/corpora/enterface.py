"""eNTERFACE'05: 43 people of many nations react in English to six stories, each with five given sentences.

The release is video (AVI). The corpus is here defined as its sound: one audio file per video, in the same tree.
Layout: `subject 1/anger/sentence 1/s1_an_1.wav`, at any depth. Subject, emotion and sentence are taken from the
folders, since the names have slips: the clips of subject 11 are called `s12_...` like those of subject 12, some of
subject 3 `s_3_...`, one of subject 16 `s16_su_3avi`. Each folder of a sentence holds one clip.
Subjects are numbered 1 to 44. Subject 6 was never cut into sentences (six long files right in the emotion folders,
which are passed over), subject 23 lacks three sentences of happiness: 43 subjects with 1287 clips. The paper counts 42
subjects of fourteen nations, and 1166 clips that two experts accepted; the release does not say which those are.
The label is the emotion of the story that the subject, no actor, had listened to before speaking. There is no neutral.
Each emotion has its own five sentences, so the words alone give it away; the sentence is named with the emotion.
The release does not say who is a woman or a man (the paper: 19 % are women): gender is unknown.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, match_names, refuse_copies

NAME = "enterface"
TITLE = "eNTERFACE'05 Audio-Visual Emotion Database (sound of the videos)"
LANGUAGE = "en"
LICENCE = "no licence text; offered for research on its page: ask the authors for more"
CITATION = (
    "O. Martin, I. Kotsia, B. Macq, I. Pitas: The eNTERFACE'05 Audio-Visual Emotion Database. Proc. 22nd International "
    "Conference on Data Engineering Workshops, 2006. doi:10.1109/ICDEW.2006.145"
)
SOURCE = "http://www.enterface.net/enterface05/docs/results/databases/project2_database.zip"
LABELS = {
    "anger": "angry",
    "disgust": "disgusted",
    "fear": "fearful",
    "happiness": "happy",
    "sadness": "sad",
    "surprise": "surprised",
}
EXPECTED_CLIPS = 1287
EXPECTED_SPEAKERS = 43
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = (
    r"[Ss]ubject ?([1-9]|[1-3]\d|4[0-4])/(anger|disgust|fear|happiness|sadness|surprise)/[Ss]entence ?([1-5])/[^/]+"
)

_UNCUT = re.compile(r"(?:.*/)?[Ss]ubject ?6/(?:anger|disgust|fear|happiness|sadness|surprise)/[^/]+")


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = {key: path for key, path in find_clips(root, by_path=True).items() if not _UNCUT.fullmatch(key)}
    matches = match_names(
        root, clips, FILE_NAMES, title=TITLE, rule="paths like subject 1/anger/sentence 1/s1_an_1, 1287 clips"
    )
    refuse_copies(root, clips, {key: "/".join(match.groups()) for key, match in matches.items()})
    return [_row(clips[key], *match.groups()) for key, match in matches.items()]


def expected_stems(root: Path) -> None:
    """None: the folders, not the stems, tell clips apart."""
    return None


def _row(path: str, subject: str, emotion: str, sentence: str) -> ClipRow:
    return ClipRow(
        path=path, class_id=LABELS[emotion], actor=subject, gender="unknown", sentence=f"{emotion} {sentence}"
    )
