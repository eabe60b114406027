"""CASIA: four Mandarin speakers read the same sentences in six emotions.

Layout: `liuchanhg/angry/201.wav`, speaker, emotion and sentence; or `angry/201-angry-liuchanhg.wav`, as a copy that is
often passed on names its files. The copies in use have sentences 201 to 250, which is 1200 clips of the 7200 (300
sentences) that all speakers read. The other 2400 clips of the full corpus, in which each emotion has its own texts, are
not read here. The label is the emotion that the speaker was asked to express.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, match_names
from ser_scripts.errors import BadInput

NAME = "casia"
TITLE = "CASIA, Chinese emotional speech corpus (same texts)"
LANGUAGE = "zh"
LICENCE = "its own licence, from the Chinese Linguistic Data Consortium"
CITATION = "Institute of Automation, Chinese Academy of Sciences: CASIA Chinese emotional corpus"
SOURCE = "http://www.chineseldc.org (CASIA Chinese emotional corpus)"
LABELS = {
    "angry": "angry",
    "fear": "fearful",
    "happy": "happy",
    "neutral": "neutral",
    "sad": "sad",
    "surprise": "surprised",
}
EXPECTED_CLIPS = None
EXPECTED_SPEAKERS = 4
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = (
    r"(?:(liuchanhg|wangzhe|zhaoquanyin|[Zz]hao[Zz]uoxiang)/(angry|fear|happy|neutral|sad|surprise)/(\d{1,3})"
    r"|(\d{1,3})-(angry|fear|happy|neutral|sad|surprise)-(liuchanhg|wangzhe|zhaoquanyin|[Zz]hao[Zz]uoxiang))"
)

_GENDERS = {"liuchanhg": "female", "wangzhe": "male", "zhaoquanyin": "female", "zhaozuoxiang": "male"}


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root, by_path=True)
    rule = "names like liuchanhg/angry/201 or 201-angry-liuchanhg"
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule=rule)
    rows: dict[tuple[str, str, str], ClipRow] = {}
    for key, match in matches.items():
        actor, emotion, sentence = _fields(match)
        if (one := rows.get((actor, emotion, sentence))) is not None:
            raise BadInput(f"{root} holds {one.path} and {clips[key]}, which are the same clip; keep one of them")
        rows[actor, emotion, sentence] = ClipRow(
            path=clips[key], class_id=LABELS[emotion], actor=actor, gender=_GENDERS[actor], sentence=sentence
        )
    return list(rows.values())


def expected_stems(root: Path) -> list[str] | None:
    """None: copies of the corpus differ."""
    return None


def _fields(match: re.Match[str]) -> tuple[str, str, str]:
    """Speaker, emotion and sentence, by either naming."""
    if match[1]:
        actor, emotion, sentence = match.group(1, 2, 3)
    else:
        sentence, emotion, actor = match.group(4, 5, 6)
    return actor.lower(), emotion, sentence
