"""Expresso, read part: four English speakers read sentences in seven styles.

Layout: `audio_48khz/read/ex01/confused/base/ex01_confused_00001.wav` (at any depth): speaker, style, number; what is
read in style `default` may have a further word, `ex01_default_emphasis_00010` (also `essentials` and `longform`), which
is here the clip's `style`. `read_transcriptions.txt` (name, tab, text) has the sentences, `splits/train.txt`, `dev.txt`
and `test.txt` the sides, which share the speakers; a long reading that is cut across sides has none. Some 11,600 clips.
The improvised dialogues (`conversational`, two speakers on two channels) are not part of the corpus as defined here,
and are passed over.

The label is the style that the speaker was asked for. `default` is plain reading, here neutral. Enunciated, narrated
and sung clips are set aside, since their style says nothing about an emotion.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, find_optional_table, match_names, read_text
from ser_scripts.errors import BadInput

NAME = "expresso"
TITLE = "Expresso (read part)"
LANGUAGE = "en"
LICENCE = "CC BY-NC 4.0"
CITATION = (
    "T. A. Nguyen, W.-N. Hsu, A. D'Avirro, B. Shi, I. Gat, M. Fazel-Zarani, T. Remez, J. Copet, G. Synnaeve, "
    "M. Hassid, F. Kreuk, Y. Adi, E. Dupoux: Expresso: A Benchmark and Analysis of Discrete Expressive Speech "
    "Resynthesis. Proc. Interspeech 2023, pp. 4823-4827"
)
SOURCE = "https://speechbot.github.io/expresso/ (expresso.tar)"
LABELS = {
    "confused": "confused",
    "default": "neutral",
    "happy": "happy",
    "laughing": "laughing",
    "sad": "sad",
    "whisper": "whispering",
}
EXPECTED_CLIPS = None
EXPECTED_SPEAKERS = 4
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"(ex0[1-4])_([a-z]+)(?:_([a-z]+))?_\d{3,5}"

_NO_EMOTION = frozenset({"enunciated", "narration", "singing"})
_DIALOGUE = re.compile(r"ex0[1-4]-ex0[1-4]_.*")
_FEMALE = frozenset({"ex02", "ex04"})
_SIDES = {"train.txt": "train", "dev.txt": "validation", "test.txt": "test"}


def read(root: Path) -> list[ClipRow]:
    """Rows of the read clips under `root`."""
    clips = {
        key: path
        for key, path in find_clips(root, by_path=True).items()
        if not _DIALOGUE.fullmatch(PurePosixPath(key).name) and "conversational" not in PurePosixPath(key).parts
    }
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule="names like ex01_confused_00001")
    sentences, sides = _sentences(root), _sides(root)
    rows: dict[str, ClipRow] = {}
    for key, match in matches.items():
        stem, (actor, emotion, style) = PurePosixPath(key).name, match.groups()
        if stem in rows:
            raise BadInput(f"{root} holds two files of one name: {rows[stem].path} and {clips[key]}. Keep one of each.")
        if emotion not in LABELS and emotion not in _NO_EMOTION:
            valid = ", ".join(sorted({*LABELS, *_NO_EMOTION}))
            raise BadInput(f"{root}/{clips[key]}: style {emotion!r} is not valid; valid: {valid}")
        rows[stem] = ClipRow(
            path=clips[key],
            class_id=LABELS.get(emotion, ""),
            actor=actor,
            gender="female" if actor in _FEMALE else "male",
            sentence=sentences.get(stem),
            style=style,
            partition=sides.get(stem),
            set_aside=f"{emotion} is a way of speaking, no emotion" if emotion in _NO_EMOTION else None,
        )
    return list(rows.values())


def expected_stems(root: Path) -> list[str] | None:
    """The stems of all clips in read_transcriptions.txt, sorted; None without that file."""
    return sorted(_sentences(root)) or None


def _sentences(root: Path) -> dict[str, str]:
    """The text of each clip in read_transcriptions.txt; none where there is no such file."""
    file = find_optional_table(root, "read_transcriptions.txt")
    lines = read_text(file).split("\n") if file is not None else []
    found = (line.partition("\t") for line in lines if "\t" in line)
    return {stem.strip(): text.strip() for stem, _, text in found}


def _sides(root: Path) -> dict[str, str]:
    """The side of each clip that stands on one side only."""
    sides: dict[str, set[str]] = {}
    for name, side in _SIDES.items():
        file = find_optional_table(root, name)
        for line in read_text(file).split("\n") if file is not None else []:
            if fields := line.split():
                sides.setdefault(fields[0], set()).add(side)
    return {stem: min(names) for stem, names in sides.items() if len(names) == 1}
