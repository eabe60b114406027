"""Oréau: both versions side by side, of which the second counts; women and men in folders of their own."""

from ser_scripts.corpora import ClipRow

CLIPS = [
    "OréauFR_01/f/sessc/10a01Ca.wav",
    "OréauFR_01/f/sessc/10a05Ca.wav",
    "OréauFR_01/m/sesst/07a03Ta.wav",
    "OréauFR_02/f/sessc/10a01Ca.wav",
    "OréauFR_02/f/sessj/42a06Ja.wav",
    "OréauFR_02/m/sesss/07z03Sa.wav",
    "OréauFR_02/m/sesst/07a03Ta.wav",
]
TABLES = {"OréauFR_02/contents.txt": "Je n'ai validé aucune matière.\n"}
ROWS = [
    ClipRow(path=CLIPS[3], class_id="angry", actor="10", gender="female", sentence="a01C"),
    ClipRow(path=CLIPS[4], class_id="happy", actor="42", gender="female", sentence="a06J"),
    ClipRow(path=CLIPS[5], class_id="surprised", actor="07", gender="male", sentence="z03S"),
    ClipRow(path=CLIPS[6], class_id="sad", actor="07", gender="male", sentence="a03T"),
]
