"""IEMOCAP: ten American actors in five sessions of two play scripts and improvise, turn by turn.

Layout: the release tree `IEMOCAP_full_release`, or its `SessionN` folders: the turns in
`SessionN/sentences/wav/<dialog>/<turn>.wav` (at any depth), the labels in `SessionN/dialog/EmoEvaluation/<dialog>.txt`,
and the words in `SessionN/dialog/transcriptions/<dialog>.txt`, which may be absent. Whole dialogs (`dialog/wav`) are
passed over. `Ses01F_impro01_M000` is session 1, a dialog in which the woman wore the markers, improvisation 1
(`script01_1`: part 1 of script 1), turn 0 of the man: the last letter is who speaks.

A turn's line `[6.2901 - 8.2357] <turn> neu [2.5000, 2.5000, 2.5000]` holds the label of the release, which most of the
raters chose after seeing and hearing the dialog in order, and the means of their valence, arousal ("activation") and
dominance on a scale of 1 to 5. `xxx`, no agreement, sets the turn aside; `oth` is a label, `other`. The lines
`C-E1: Neutral; Anger;` are what each rater chose: a rater of several words gives each the same part of one vote. The
actors' own ratings (`C-F1`, `C-M1`) are no votes, nor are they in the release's label and means.

Published: 10039 turns, of which 1849 frustrated, 1708 neutral, 1103 angry, 1084 sad, 1041 excited, 595 happy, 107
surprised, 40 fearful, 3 other, 2 disgusted, and 2507 without agreement; 5531 in four classes with excited merged into
happy. Partners of a session hear each other: the group is the session.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, listed, match_names, read_text, walk
from ser_scripts.errors import BadInput

NAME = "iemocap"
TITLE = "IEMOCAP, Interactive Emotional Dyadic Motion Capture database"
LANGUAGE = "en"
LICENCE = "its own licence: academic use, on application to the authors"
CITATION = (
    "C. Busso, M. Bulut, C.-C. Lee, A. Kazemzadeh, E. Mower, S. Kim, J. N. Chang, S. Lee, S. S. Narayanan: IEMOCAP: "
    "Interactive emotional dyadic motion capture database. Language Resources and Evaluation 42(4), pp. 335-359, 2008"
)
SOURCE = "https://sail.usc.edu/iemocap/ (release form; IEMOCAP_full_release)"
LABELS = {
    "ang": "angry",
    "dis": "disgusted",
    "exc": "excited",
    "fea": "fearful",
    "fru": "frustrated",
    "hap": "happy",
    "neu": "neutral",
    "oth": "other",
    "sad": "sad",
    "sur": "surprised",
}
EXPECTED_CLIPS = 10039
EXPECTED_SPEAKERS = 10
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"(Ses0[1-5])[FM]_(impro|script)\d\d[a-z]?(?:_\d[a-z]?)?_([FM])(?:\d{3}|XX\d)"
LABEL_SETS = {
    "all": "all ten categories",
    "4-class": "angry, happy (with excited), neutral, sad; the others are set aside",
    "4-class-no-excited": "angry, happy, neutral, sad; the others, excited too, are set aside",
    "6-class": "angry, excited, frustrated, happy, neutral, sad; the others are set aside",
    "attributes": "all turns, for models that predict their ratings: no agreement counts as other",
}
RATING_SCALE = (1.0, 5.0)

_KEPT = {
    "all": frozenset(LABELS.values()),
    "4-class": frozenset({"angry", "happy", "neutral", "sad"}),
    "4-class-no-excited": frozenset({"angry", "happy", "neutral", "sad"}),
    "6-class": frozenset({"angry", "excited", "frustrated", "happy", "neutral", "sad"}),
    "attributes": frozenset(LABELS.values()),
}
_WORDS = {
    "anger": "angry",
    "disgust": "disgusted",
    "excited": "excited",
    "fear": "fearful",
    "frustration": "frustrated",
    "happiness": "happy",
    "neutral": "neutral",
    "neutral state": "neutral",
    "other": "other",
    "sadness": "sad",
    "surprise": "surprised",
}
_DIALOG = re.compile(r"Ses0[1-5][FM]_(?:impro|script)\d\d[a-z]?(?:_\d[a-z]?)?")
_NUMBER = r"(-?\d+(?:\.\d+)?)"
_TURN_LINE = re.compile(
    rf"\[\s*{_NUMBER}\s*-\s*{_NUMBER}\s*\]\s+(\S+)\s+(\S+)\s+\[{_NUMBER},\s*{_NUMBER},\s*{_NUMBER}\]\s*"
)
_RATER_LINE = re.compile(r"C-E\d+:([^(]*)")
_WORDS_LINE = re.compile(r"(\S+)\s+\[[^]]*\]:\s*(.*?)\s*")


@dataclass(frozen=True)
class _Turn:
    """What EmoEvaluation says of one turn."""

    label: str
    valence: float
    arousal: float
    dominance: float
    votes: tuple[tuple[str, float], ...] | None


def read(root: Path, labels: str = "all") -> list[ClipRow]:
    """Rows of the turns under `root`, described by dialog/EmoEvaluation."""
    clips = {stem: path for stem, path in find_clips(root).items() if not _DIALOG.fullmatch(stem)}
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule="names like Ses01F_impro01_M000")
    turns, words = _turns(root), _words(root)
    if unlabelled := [clips[stem] for stem in clips if stem not in turns]:
        raise BadInput(
            f"{root}: {len(unlabelled)} turns have no line in a dialog/EmoEvaluation/<dialog>.txt: {listed(unlabelled)}"
        )
    return [_row(clips[stem], turns[stem], words.get(stem), labels, match) for stem, match in matches.items()]


def expected_stems(root: Path) -> list[str] | None:
    """The stems of all turns in EmoEvaluation, sorted; None where the files there do not list all 10039."""
    turns = sorted(_turns(root))
    return turns if len(turns) == EXPECTED_CLIPS else None


def _row(path: str, turn: _Turn, words: str | None, labels: str, match: re.Match[str]) -> ClipRow:
    session, dialog, speaker = match.groups()
    merged = {"excited": "happy"} if labels == "4-class" else {}
    if turn.label == "xxx" and labels == "attributes":
        class_id, set_aside = "other", None
    elif turn.label == "xxx":
        class_id, set_aside = "", "raters did not agree (xxx)"
    else:
        class_id, set_aside = merged.get(LABELS[turn.label], LABELS[turn.label]), None
        if class_id not in _KEPT[labels]:
            class_id, set_aside = "", f"{class_id} is not among the labels '{labels}'"
    return ClipRow(
        path=path,
        class_id=class_id,
        actor=session + speaker,
        gender="female" if speaker == "F" else "male",
        group=session,
        sentence=words,
        style="improvised" if dialog == "impro" else "scripted",
        valence=turn.valence,
        arousal=turn.arousal,
        dominance=turn.dominance,
        votes=_merge(turn.votes, merged),
        set_aside=set_aside,
    )


def _merge(
    votes: tuple[tuple[str, float], ...] | None, merged: Mapping[str, str]
) -> tuple[tuple[str, float], ...] | None:
    if votes is None or not merged:
        return votes
    sums: dict[str, float] = {}
    for label, count in votes:
        sums[merged.get(label, label)] = sums.get(merged.get(label, label), 0.0) + count
    return tuple(sorted(sums.items()))


def _files_of(root: Path, folder: str) -> list[Path]:
    """The text files of the dialogs in folders of this name."""
    return [
        file
        for file in walk(root)
        if file.parent.name == folder and file.suffix == ".txt" and _DIALOG.fullmatch(file.stem)
    ]


def _turns(root: Path) -> dict[str, _Turn]:
    files = _files_of(root, "EmoEvaluation")
    if not files:
        raise BadInput(
            f"{root} holds no label files of {TITLE} (SessionN/dialog/EmoEvaluation/Ses01F_impro01.txt and so on)"
        )
    turns: dict[str, _Turn] = {}
    for file in files:
        heads: list[tuple[int, re.Match[str], list[str]]] = []
        for number, line in enumerate(read_text(file, fallback="latin-1").split("\n"), 1):
            if line.startswith("["):
                if (match := _TURN_LINE.fullmatch(line)) is None:
                    raise BadInput(f"{file} line {number}: not `[start - end] turn label [v, a, d]`: {line!r}")
                heads.append((number, match, []))
            elif heads and (rater := _RATER_LINE.match(line)):
                heads[-1][2].append(rater[1])
        for number, match, raters in heads:
            name, label = match[3], match[4]
            if label != "xxx" and label not in LABELS:
                raise BadInput(f"{file} line {number}: label {label!r} is not valid; valid: {', '.join(LABELS)}, xxx")
            if name in turns:
                raise BadInput(f"{file} line {number}: turn {name!r} stands there twice")
            valence, arousal, dominance = (float(match[group]) for group in (5, 6, 7))
            votes = _votes(raters, f"{file} line {number}, turn {name}")
            turns[name] = _Turn(label, valence, arousal, dominance, votes)
    return turns


def _votes(raters: Sequence[str], where: str) -> tuple[tuple[str, float], ...] | None:
    """Votes of the raters' lines: one for each rater, parted evenly among the words that the rater chose."""
    sums: dict[str, float] = {}
    for line in raters:
        words = sorted({word.strip().lower() for word in line.split(";")} - {""})
        if strange := [word for word in words if word not in _WORDS]:
            raise BadInput(f"{where}: a rater chose {listed(strange)}, which is not valid; valid: {', '.join(_WORDS)}")
        chosen = sorted({_WORDS[word] for word in words})
        for label in chosen:
            sums[label] = sums.get(label, 0.0) + 1 / len(chosen)
    return tuple(sorted(sums.items())) or None


def _words(root: Path) -> dict[str, str]:
    """What is said in each turn, as far as there are transcriptions."""
    lines = (
        _WORDS_LINE.fullmatch(line)
        for file in _files_of(root, "transcriptions")
        for line in read_text(file, fallback="latin-1").split("\n")
    )
    return {match[1]: match[2] for match in lines if match is not None and match[2]}
