"""ESD: ten English and ten Mandarin speakers read 350 sentences of their language in five emotions.

Layout: `0001/Angry/train/0001_000351.wav`: speaker, emotion, the corpus' own side (`train`, `evaluation`, `test`; here
train, validation, test), speaker and number; or the same without the folders of the sides. Speakers 0001 to 0010 speak
Mandarin, 0011 to 0020 English. Each has 350 clips of each emotion, numbered through: neutral 1 to 350, angry to 700,
happy to 1050, sad to 1400, surprised to 1750. The folder is the label; in a flat folder it is the number. A folder that
holds one language alone is complete with that language.

The n-th clips of a language's speakers and emotions have the same text, so the sentence here is that number (`en-131`).
The transcripts (`0001/0001.txt`) are not read: they come in four encodings, and differ here and there for one sentence.
The corpus' own sides share speakers: they differ in their sentences. The label is the emotion that the speaker was
asked to express.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import check_names, find_clips, match_names

NAME = "esd"
TITLE = "ESD, Emotional Speech Dataset (English and Mandarin)"
LANGUAGE = "mul"
LICENCE = "its own licence: research only, on application to the authors"
CITATION = (
    "K. Zhou, B. Sisman, R. Liu, H. Li: Emotional voice conversion: Theory, databases and ESD. Speech Communication "
    "137, pp. 1-18, 2022"
)
SOURCE = "https://github.com/HLTSingapore/Emotional-Speech-Data"
LABELS = {
    "Neutral": "neutral",
    "Angry": "angry",
    "Happy": "happy",
    "Sad": "sad",
    "Surprise": "surprised",
}
EXPECTED_CLIPS = 35_000
EXPECTED_SPEAKERS = 20
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"(00(?:0[1-9]|1\d|20))_(00[01]\d{3})"

_SENTENCES = 350
_FEMALE = frozenset({"0001", "0002", "0003", "0007", "0009", "0015", "0016", "0017", "0018", "0019"})
_PARTITIONS = {"train": "train", "evaluation": "validation", "test": "test"}


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root)
    rule = "names like 0011_000351, numbers 1 to 1750"
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule=rule)
    check_names(root, clips, _stems(1, EXPECTED_SPEAKERS), title=TITLE, rule=rule)
    return [_row(clips[stem], match) for stem, match in matches.items()]


def expected_stems(root: Path) -> list[str]:
    """The stems of all clips in the languages of which there is one under `root`, sorted."""
    speakers = {int(stem[:4]) for stem in find_clips(root) if re.fullmatch(r"\d{4}_\d{6}", stem)}
    mandarin, english = min(speakers, default=1) <= 10, max(speakers, default=20) > 10
    return _stems(1 if mandarin else 11, 20 if english else 10)


def _stems(first: int, last: int) -> list[str]:
    numbers = range(1, len(LABELS) * _SENTENCES + 1)
    return [f"{speaker:04d}_{number:06d}" for speaker in range(first, last + 1) for number in numbers]


def _row(path: str, match: re.Match[str]) -> ClipRow:
    actor, number = match.groups()
    *_, emotion_folder, folder = ("", "", *PurePosixPath(path).parent.parts)
    side = _PARTITIONS.get(folder)
    emotion_folder = emotion_folder if side else folder
    emotion, sentence = divmod(int(number) - 1, _SENTENCES)
    language = "zh" if int(actor) <= 10 else "en"
    return ClipRow(
        path=path,
        class_id=LABELS.get(emotion_folder) or list(LABELS.values())[emotion],
        actor=actor,
        gender="female" if actor in _FEMALE else "male",
        sentence=f"{language}-{sentence + 1:03d}",
        language=language,
        partition=side,
    )
