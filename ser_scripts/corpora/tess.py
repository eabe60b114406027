"""TESS: two Canadian actresses, one of 64 and one of 26 years, say two hundred words in seven emotions.

Layout: 2800 clips in one folder (the data set's own release), or in one folder per speaker and emotion (`OAF_angry`,
`YAF_pleasant_surprised`, ...; the case of these differs), at any depth. `OAF_back_angry` is the older speaker (YAF: the
younger one), the word "back", and the emotion; every clip says "Say the word ..." first. The emotion `ps`, pleasant
surprise, is read as surprised.
The label is the emotion that the actress was asked to play.
Quirks of the release: one clip of OAF is named `OA_bite_neutral`; two clips are AIFF inside although they are named
.wav; `OAF_food_fear` has 96 kHz, all others 24.414 kHz. A copy that is passed around holds the whole tree twice: keep
one of the two folders.
With two speakers, both women, no speaker-independent result says much about other people.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import check_names, find_clips

NAME = "tess"
TITLE = "TESS, Toronto Emotional Speech Set"
LANGUAGE = "en"
LICENCE = "CC BY-NC-ND 4.0"
CITATION = (
    "M. K. Pichora-Fuller, K. Dupuis: Toronto emotional speech set (TESS). Scholars Portal Dataverse, 2020. "
    "doi:10.5683/SP2/E8H2MF"
)
SOURCE = "https://doi.org/10.5683/SP2/E8H2MF, or https://tspace.library.utoronto.ca/handle/1807/24487"
LABELS = {
    "angry": "angry",
    "disgust": "disgusted",
    "fear": "fearful",
    "happy": "happy",
    "neutral": "neutral",
    "ps": "surprised",
    "sad": "sad",
}
EXPECTED_CLIPS = 2800
EXPECTED_SPEAKERS = 2
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"(OAF?|YAF)_[a-z]+_(angry|disgust|fear|happy|neutral|ps|sad)"

_WORDS = """
back bar base bath bean beg bite boat bone book bought burn cab calm came cause chain chair chalk chat check cheek chief
choice cool dab date dead death deep dime dip ditch dodge dog doll door fail fall far fat fit five food gap gas gaze
germ get gin goal good goose gun half hall hash hate have haze hire hit hole home hurl hush jail jar join judge jug
juice keen keep keg kick kill king kite knock late laud lean learn lease lid life limb live loaf long lore lose lot love
luck make match merge mess met mill mob mode mood moon mop mouse nag name near neat nice note numb pad page pain pass
pearl peg perch phone pick pike pole pool puff rag raid rain raise rat reach read red ring ripe road room rose rot rough
rush said sail search seize sell shack shall shawl sheep shirt should shout size soap soup sour south sub such sure take
talk tape team tell thin third thought thumb time tip tire ton tool top turn vine voice void vote wag walk wash week
wheat when which whip white wife wire witch yearn yes young youth
"""


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root)
    check_names(root, clips, expected_stems(root), title=TITLE, rule="names like OAF_back_angry, 2800 clips")
    return [_row(path, *stem.split("_")) for stem, path in clips.items()]


def expected_stems(root: Path) -> list[str]:
    """The stems of the 2800 clips, sorted; the same for every `root`."""
    regular = {"_".join(fields) for fields in product(("OAF", "YAF"), _WORDS.split(), LABELS)}
    return sorted(regular - {"OAF_bite_neutral"} | {"OA_bite_neutral"})


def _row(path: str, speaker: str, word: str, emotion: str) -> ClipRow:
    return ClipRow(
        path=path,
        class_id=LABELS[emotion],
        actor="YAF" if speaker == "YAF" else "OAF",
        gender="female",
        sentence=word,
    )
