"""RESD: clips of two dialogs, with the folders of the sides and without. It does not say who speaks."""

from ser_scripts.corpora import ClipRow

CLIPS = [
    "enthusiasm/32_happiness_enthusiasm_e_010.wav",
    "happiness/32_happiness_enthusiasm_h_120.wav",
    "test/fear/36_fear_neutral_f_010.wav",
    "train/anger/5_anger_sadness_a_020.wav",
]
TABLES: dict[str, str] = {}
ROWS = [
    ClipRow(path=CLIPS[0], class_id="enthusiastic", actor="", gender="unknown", group="32_happiness_enthusiasm"),
    ClipRow(path=CLIPS[1], class_id="happy", actor="", gender="unknown", group="32_happiness_enthusiasm"),
    ClipRow(path=CLIPS[2], class_id="fearful", actor="", gender="unknown", group="36_fear_neutral", partition="test"),
    ClipRow(path=CLIPS[3], class_id="angry", actor="", gender="unknown", group="5_anger_sadness", partition="train"),
]
