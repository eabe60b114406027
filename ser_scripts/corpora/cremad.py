"""CREMA-D: 91 North American actors speak twelve sentences in six emotions.

Layout: `AudioWAV` with the clips (at any depth; `AudioMP3` beside it repeats them and is passed over) and
`VideoDemographics.csv` beside that folder or in it. The name of a clip is actor, sentence, emotion, intensity:
`1001_IEO_ANG_HI`. Sentence IEO was spoken at three intensities (LO, MD, HI), the others at one (XX).
The label is the intended one, which the actor was asked to play, not the one that raters perceived.
Twenty clips of the full grid were never released, and one is named `1040_ITH_SAD_X`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import check_names, find_clips, find_table, read_genders

NAME = "cremad"
TITLE = "CREMA-D, Crowd-sourced Emotional Multimodal Actors Dataset (intended labels)"
LANGUAGE = "en"
LICENCE = "ODbL 1.0 (database) and DbCL 1.0 (contents)"
CITATION = (
    "H. Cao, D. G. Cooper, M. K. Keutmann, R. C. Gur, A. Nenkova, R. Verma: CREMA-D: Crowd-Sourced Emotional "
    "Multimodal Actors Dataset. IEEE Transactions on Affective Computing 5(4), pp. 377-390, 2014"
)
SOURCE = "https://github.com/CheyneyComputerScience/CREMA-D (AudioWAV and VideoDemographics.csv)"
LABELS = {
    "ANG": "angry",
    "DIS": "disgusted",
    "FEA": "fearful",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
EXPECTED_CLIPS = 7442
EXPECTED_SPEAKERS = 91
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"1\d{3}_[A-Z]{3}_(ANG|DIS|FEA|HAP|NEU|SAD)_(XX?|LO|MD|HI)"

_ACTORS = [str(number) for number in range(1001, 1092)]
_SENTENCES = ("DFA", "IOM", "ITH", "ITS", "IWL", "IWW", "MTI", "TAI", "TIE", "TSI", "WSI")
_ABSENT = (
    {f"{take}_{emotion}_XX" for take in ("1008_WSI", "1009_MTI", "1019_ITH") for emotion in LABELS}
    | {"1002_TIE_NEU_XX", "1076_ITS_NEU_XX"}
    | {"1040_ITH_SAD_XX"}  # released as 1040_ITH_SAD_X
)


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`; genders come from VideoDemographics.csv."""
    clips = find_clips(root)
    check_names(root, clips, expected_stems(root), title=TITLE, rule="names like 1001_IEO_ANG_HI, 7442 clips")
    genders = read_genders(
        find_table(root, "VideoDemographics.csv"),
        {stem.split("_")[0] for stem in clips},
        speaker_column="actorid",
        gender_column="sex",
    )
    return [_row(path, genders, *stem.split("_")[:3]) for stem, path in clips.items()]


def expected_stems(root: Path) -> list[str]:
    """The stems of the 7442 clips, sorted; the same for every `root`."""
    once = {
        f"{actor}_{sentence}_{emotion}_XX" for actor in _ACTORS for sentence in _SENTENCES for emotion in LABELS
    } | {f"{actor}_IEO_NEU_XX" for actor in _ACTORS}
    graded = {
        f"{actor}_IEO_{emotion}_{intensity}"
        for actor in _ACTORS
        for emotion in LABELS
        for intensity in ("LO", "MD", "HI")
        if emotion != "NEU"
    }
    return sorted((once | graded | {"1040_ITH_SAD_X"}) - _ABSENT)


def _row(path: str, genders: dict[str, str], actor: str, sentence: str, emotion: str) -> ClipRow:
    return ClipRow(path=path, class_id=LABELS[emotion], actor=actor, gender=genders[actor], sentence=sentence)
