"""MELD: utterances from dialogues of the television series Friends, in seven emotions.

Layout: the release holds videos: take their audio out under the same names. `train_splits/dia0_utt0`,
`dev_splits_complete/dia0_utt0` and `output_repeated_splits_test/dia0_utt0` (any folders whose names hold train, dev or
test) are three different clips; the sides are here train, validation, test. `train_sent_emo.csv`, `dev_sent_emo.csv`
and `test_sent_emo.csv` (Utterance, Speaker, Emotion, Dialogue_ID, Utterance_ID, ...) list 9989, 1109 and 2610 clips.

Of these, train dia125_utt3 is broken and dev dia110_utt7 was never released. Clips that no table lists (some in dev and
test, and `final_videos_test...`, which repeat test clips) are passed over. Some clips are cut wrongly, up to minutes
long, and many have the audience's laughter in them.

The label is what three raters agreed on who saw the dialogue. Actors are the names in the tables. Several people may
share a name there (`All`, `Woman`), and the gender of all but the six main characters is unknown. The main characters
speak on all three sides, so results on them are speaker-dependent. The group is the dialogue.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, find_optional_table, find_table, match_names, read_table
from ser_scripts.errors import BadInput

NAME = "meld"
TITLE = "MELD, Multimodal EmotionLines Dataset (audio)"
LANGUAGE = "en"
LICENCE = "GPL 3.0 (annotations, as its repository states); the clips are cut from a television series: ask its owners"
CITATION = (
    "S. Poria, D. Hazarika, N. Majumder, G. Naik, E. Cambria, R. Mihalcea: MELD: A Multimodal Multi-Party Dataset for "
    "Emotion Recognition in Conversations. Proc. ACL 2019, pp. 527-536"
)
SOURCE = "https://affective-meld.github.io/ (MELD.Raw.tar.gz)"
LABELS = {
    "anger": "angry",
    "disgust": "disgusted",
    "fear": "fearful",
    "joy": "happy",
    "neutral": "neutral",
    "sadness": "sad",
    "surprise": "surprised",
}
EXPECTED_CLIPS = 13_708
EXPECTED_SPEAKERS = None
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"[^/]*(train|dev|test)[^/]*/(?:(?![^/]*(?:train|dev|test))[^/]+/)*dia(\d+)_utt(\d+)"

_PARTITIONS = {"train": "train", "dev": "validation", "test": "test"}
_COLUMNS = ("utterance", "speaker", "emotion", "dialogue_id", "utterance_id")
_GENDERS = {
    "Chandler": "male",
    "Joey": "male",
    "Monica": "female",
    "Phoebe": "female",
    "Rachel": "female",
    "Ross": "male",
}


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root` that the tables of their sides list."""
    clips, matches = _clips(root)
    tables = {side: _table(root, side) for side in sorted({match[1] for match in matches.values()})}
    rows: dict[tuple[str, str, str], ClipRow] = {}
    for key, match in matches.items():
        side, dialogue, utterance = match.groups()
        cells = tables[side].get((dialogue, utterance))
        if cells is None:
            continue
        if (side, dialogue, utterance) in rows:
            raise BadInput(
                f"{root} holds {rows[side, dialogue, utterance].path} and {clips[key]}, which are the same clip of "
                f"{TITLE}; keep one of them"
            )
        rows[side, dialogue, utterance] = ClipRow(
            path=clips[key],
            class_id=LABELS[cells["emotion"]],
            actor=cells["speaker"],
            gender=_GENDERS.get(cells["speaker"], "unknown"),
            group=f"{side}-dia{dialogue}",
            sentence=cells["utterance"],
            partition=_PARTITIONS[side],
        )
    return list(rows.values())


def expected_stems(root: Path) -> list[str] | None:
    """Every clip that the tables list, by its whole path without suffix, since one stem stands for up to three clips.

    A clip that is missing is stated in the folder of its side's first clip. None where a table is missing or not
    complete, so that missing clips can be counted only.
    """
    clips, matches = _clips(root)
    there: dict[str, dict[tuple[str, str], str]] = {side: {} for side in _PARTITIONS}
    for key, match in matches.items():
        there[match[1]].setdefault((match[2], match[3]), str(PurePosixPath(clips[key]).with_suffix("")))
    if any(find_optional_table(root, f"{side}_sent_emo.csv") is None for side in _PARTITIONS):
        return None
    stems = []
    for side, found in there.items():
        folder = str(PurePosixPath(next(iter(found.values()), f"{side}/none")).parent)
        for dialogue, utterance in _table(root, side):
            named = PurePosixPath(folder, f"dia{dialogue}_utt{utterance}")
            stems.append(found.get((dialogue, utterance), str(named)))
    return stems if len(stems) == EXPECTED_CLIPS else None


def _clips(root: Path) -> tuple[dict[str, str], dict[str, re.Match[str]]]:
    """Paths and matches of the clips that are no copies of others."""
    clips = {
        key: path
        for key, path in find_clips(root, by_path=True).items()
        if not PurePosixPath(key).name.startswith("final_videos_test")
    }
    rule = "names like train_splits/dia0_utt0, with train, dev or test in the folder's name"
    return clips, match_names(root, clips, FILE_NAMES, title=TITLE, rule=rule)


def _table(root: Path, side: str) -> dict[tuple[str, str], dict[str, str]]:
    """Rows of a side's table by dialogue and utterance, checked."""
    file = find_table(root, f"{side}_sent_emo.csv")
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for line, cells in read_table(file, _COLUMNS)[1]:
        key = (cells["dialogue_id"], cells["utterance_id"])
        if not (re.fullmatch(r"\d+", key[0]) and re.fullmatch(r"\d+", key[1])):
            raise BadInput(
                f"{file} line {line}: Dialogue_ID and Utterance_ID are {key[0]!r} and {key[1]!r}, no numbers"
            )
        if key in rows:
            raise BadInput(f"{file} line {line}: dia{key[0]}_utt{key[1]} stands there twice")
        if cells["emotion"] not in LABELS:
            raise BadInput(f"{file} line {line}: Emotion {cells['emotion']!r} is not valid; valid: {', '.join(LABELS)}")
        if not cells["speaker"]:
            raise BadInput(f"{file} line {line}: Speaker is empty")
        rows[key] = cells
    return rows
