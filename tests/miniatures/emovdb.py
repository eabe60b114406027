"""EmoV-DB: the sorted release, with names that several speakers share, one with another range, one capital."""

from ser_scripts.corpora import ClipRow

_TOP = "EmoV-DB_sorted"
CLIPS = [
    f"{_TOP}/bea/Amused/amused_141_168_0141.wav",
    f"{_TOP}/bea/Angry/anger_1-28_0011.wav",
    f"{_TOP}/jenie/Disgusted/disgust_29-56_0055.wav",
    f"{_TOP}/josh/Sleepy/Sleepiness_1-28_0011.wav",
    f"{_TOP}/sam/Angry/anger_1-28_0011.wav",
]
TABLES: dict[str, str] = {}
ROWS = [
    ClipRow(path=CLIPS[0], class_id="amused", actor="bea", gender="female", sentence="0141"),
    ClipRow(path=CLIPS[1], class_id="angry", actor="bea", gender="female", sentence="0011"),
    ClipRow(path=CLIPS[2], class_id="disgusted", actor="jenie", gender="female", sentence="0055"),
    ClipRow(path=CLIPS[3], class_id="sleepy", actor="josh", gender="male", sentence="0011"),
    ClipRow(path=CLIPS[4], class_id="angry", actor="sam", gender="male", sentence="0011"),
]
