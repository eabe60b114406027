"""SUBESCO: women and men of the same number, sentence ten."""

from ser_scripts.corpora import ClipRow

CLIPS = [
    "SUBESCO/F_01_OISHI_S_10_ANGRY_1.wav",
    "SUBESCO/F_02_MONIKA_S_1_NEUTRAL_5.wav",
    "SUBESCO/M_02_NIPUN_S_1_SURPRISE_3.wav",
    "SUBESCO/M_10_EVAN_S_3_HAPPY_2.wav",
]
TABLES: dict[str, str] = {}
ROWS = [
    ClipRow(path=CLIPS[0], class_id="angry", actor="F_01", gender="female", sentence="10"),
    ClipRow(path=CLIPS[1], class_id="neutral", actor="F_02", gender="female", sentence="1"),
    ClipRow(path=CLIPS[2], class_id="surprised", actor="M_02", gender="male", sentence="1"),
    ClipRow(path=CLIPS[3], class_id="happy", actor="M_10", gender="male", sentence="3"),
]
