"""MEAD, audio: English speakers say sentences in seven emotions at three levels, and neutrally.

Layout: `M003/audio/angry/level_1/001.m4a` (the `audio` part of each speaker; the folder `audio` may be left out):
speaker (M a man, W a woman), emotion, level of intensity, clip. Names repeat from folder to folder. Clips are M4A,
which needs the program ffmpeg, unless you convert them. Neutral has one level.
A clip's number follows the list of sentences of its emotion, but not for all speakers, since some lost a clip: no
sentence is stated here. The paper speaks of 60 speakers, of whom the public part holds 48.
The label is the emotion that the speaker was asked to play.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, match_names

NAME = "mead"
TITLE = "MEAD, Multi-view Emotional Audio-visual Dataset (audio)"
LANGUAGE = "en"
LICENCE = "its own licence: research only, see the project's page"
CITATION = (
    "K. Wang, Q. Wu, L. Song, Z. Yang, W. Wu, C. Qian, R. He, Y. Qiao, C. C. Loy: MEAD: A Large-Scale Audio-Visual "
    "Dataset for Emotional Talking-Face Generation. Proc. ECCV 2020, pp. 700-717"
)
SOURCE = "https://wywu.github.io/projects/MEAD/MEAD.html"
LABELS = {
    "angry": "angry",
    "contempt": "contempt",
    "disgusted": "disgusted",
    "fear": "fearful",
    "happy": "happy",
    "neutral": "neutral",
    "sad": "sad",
    "surprised": "surprised",
}
EXPECTED_CLIPS = None
EXPECTED_SPEAKERS = None
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"([MW])(\d{3})/(?:[^/]+/)?(angry|contempt|disgusted|fear|happy|neutral|sad|surprised)/(level_[1-3])/\d{3}"


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root, by_path=True)
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule="names like M003/audio/angry/level_1/001")
    return [
        ClipRow(
            path=clips[key],
            class_id=LABELS[match[3]],
            actor=match[1] + match[2],
            gender="female" if match[1] == "W" else "male",
            intensity=match[4],
        )
        for key, match in matches.items()
    ]


def expected_stems(root: Path) -> list[str] | None:
    """None: the number of clips differs from speaker to speaker."""
    return None
