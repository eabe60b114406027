"""EMOVO: six Italian actors speak fourteen sentences in seven emotions.

Layout: one folder per actor (`f1`, `f2`, `f3`, `m1`, `m2`, `m3`), at any depth. The name of a clip says everything:
`dis-f1-b1` is emotion dis (Italian), actor f1, sentence b1. Sentences: three short (b), four long (l), five
without sense (n), two questions (d). The label is the emotion that the actor was asked to play.

There are 84 clips per emotion. Six speakers make few distinct splits: with N = 0.8 there are 36, with 9 test sets.
Seeds beyond that repeat them.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import check_names, find_clips

NAME = "emovo"
TITLE = "EMOVO, an Italian emotional speech database"
LANGUAGE = "it"
LICENCE = "no licence text; its page allowed non-commercial use with acknowledgement: ask the authors for more"
CITATION = (
    "G. Costantini, I. Iaderola, A. Paoloni, M. Todisco: EMOVO Corpus: an Italian Emotional Speech Database. "
    "Proc. LREC 2014, pp. 3501-3504"
)
SOURCE = "http://voice.fub.it/activities/corpora/emovo/index.html, or from the authors"
LABELS = {
    "rab": "angry",
    "gio": "happy",
    "tri": "sad",
    "neu": "neutral",
    "pau": "fearful",
    "dis": "disgusted",
    "sor": "surprised",
}
EXPECTED_CLIPS = 588
EXPECTED_SPEAKERS = 6
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"(dis|gio|neu|pau|rab|sor|tri)-[fm][1-3]-[bdln][1-5]"

_ACTORS = ("f1", "f2", "f3", "m1", "m2", "m3")
_SENTENCES = ("b1", "b2", "b3", "l1", "l2", "l3", "l4", "n1", "n2", "n3", "n4", "n5", "d1", "d2")


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root)
    check_names(root, clips, expected_stems(root), title=TITLE, rule="names like dis-f1-b1, 588 clips")
    return [_row(path, *stem.split("-")) for stem, path in clips.items()]


def expected_stems(root: Path) -> list[str]:
    """The stems of the 588 clips, sorted; the same for every `root`."""
    return sorted("-".join(fields) for fields in product(LABELS, _ACTORS, _SENTENCES))


def _row(path: str, emotion: str, actor: str, sentence: str) -> ClipRow:
    gender = "female" if actor.startswith("f") else "male"
    return ClipRow(path=path, class_id=LABELS[emotion], actor=actor, gender=gender, sentence=sentence)
