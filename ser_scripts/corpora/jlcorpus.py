"""JL-Corpus: two women and two men from New Zealand speak in five primary and five secondary emotions.

Layout: `Raw JL corpus (unchecked and unannotated)/JL(wav+txt)` with a clip and its text side by side (at any depth).
`female1_angry_10a_1` is the speaker, the emotion, sentence 10, and two marks (a or b, 1 or 2) that tell its four
recordings, two sessions of two. The grid is complete: 15 sentences four times, so 60 clips per speaker and emotion.
Primary emotions are angry, excited, happy, neutral, sad; secondary ones anxious, apologetic, assertive, concerned,
encouraging. The names do not say whether both halves share their sentences, so a sentence is named with its half
(`primary 10`). The label is the emotion that the speaker was asked to play; 120 listeners checked the corpus.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, match_names

NAME = "jlcorpus"
TITLE = "JL-Corpus, New Zealand English emotional speech"
LANGUAGE = "en"
LICENCE = "CC0 1.0, as its page states"
CITATION = (
    "J. James, L. Tian, C. I. Watson: An Open Source Emotional Speech Corpus for Human Robot Interaction Applications. "
    "Proc. Interspeech 2018, pp. 2768-2772. doi:10.21437/Interspeech.2018-1349"
)
SOURCE = "https://www.kaggle.com/datasets/tli725/jl-corpus"
LABELS = {
    "angry": "angry",
    "anxious": "anxious",
    "apologetic": "apologetic",
    "assertive": "assertive",
    "concerned": "concerned",
    "encouraging": "encouraging",
    "excited": "excited",
    "happy": "happy",
    "neutral": "neutral",
    "sad": "sad",
}
EXPECTED_CLIPS = 2400
EXPECTED_SPEAKERS = 4
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = (
    r"((?:fe)?male[12])_"
    r"(angry|anxious|apologetic|assertive|concerned|encouraging|excited|happy|neutral|sad)_"
    r"([1-9]|1[0-5])[ab]_[12]"
)
LABEL_SETS = {
    "all": "all ten emotions",
    "primary": "angry, excited, happy, neutral, sad; the secondary ones are set aside",
}

_PRIMARY = frozenset({"angry", "excited", "happy", "neutral", "sad"})
_SPEAKERS = ("female1", "female2", "male1", "male2")


def read(root: Path, labels: str = "all") -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root)
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule="names like female1_angry_10a_1, 2400 clips")
    rows = [_row(clips[stem], *match.groups()) for stem, match in matches.items()]
    return [_without_secondary(row) for row in rows] if labels == "primary" else rows


def expected_stems(root: Path) -> list[str]:
    """The stems of the 2400 clips, sorted; the same for every `root`."""
    return sorted(
        f"{speaker}_{emotion}_{sentence}{mark}_{number}"
        for speaker, emotion, sentence, mark, number in product(_SPEAKERS, LABELS, range(1, 16), "ab", "12")
    )


def _row(path: str, speaker: str, emotion: str, sentence: str) -> ClipRow:
    half = "primary" if emotion in _PRIMARY else "secondary"
    return ClipRow(
        path=path,
        class_id=LABELS[emotion],
        actor=speaker,
        gender="female" if speaker.startswith("female") else "male",
        sentence=f"{half} {sentence}",
    )


def _without_secondary(row: ClipRow) -> ClipRow:
    if row.class_id in _PRIMARY:
        return row
    return replace(row, class_id="", set_aside=f"{row.class_id} is not among the labels 'primary'")
