"""URDU: the hundredth clip of an emotion, women and men."""

from ser_scripts.corpora import ClipRow

_TOP = "URDU-Dataset-master"
CLIPS = [
    f"{_TOP}/Angry/SM1_F10_A010.wav",
    f"{_TOP}/Angry/SM4_F48_A0100.wav",
    f"{_TOP}/Sad/SF10_F1_S01.wav",
    f"{_TOP}/Sad/SM6_F4_S0100.wav",
]
TABLES = {f"{_TOP}/README.md": "# URDU-Dataset\n"}
ROWS = [
    ClipRow(path=CLIPS[0], class_id="angry", actor="SM1", gender="male"),
    ClipRow(path=CLIPS[1], class_id="angry", actor="SM4", gender="male"),
    ClipRow(path=CLIPS[2], class_id="sad", actor="SF10", gender="female"),
    ClipRow(path=CLIPS[3], class_id="sad", actor="SM6", gender="male"),
]
