"""BAVED: all three levels, two words, three speakers."""

from ser_scripts.corpora import ClipRow

CLIPS = [
    "0/0-m-21-0-1-105.wav",
    "0/10-f-20-0-1-0.wav",
    "2/55-m-16-2-0-778.wav",
    "2/55-m-16-2-2-815.wav",
]
TABLES: dict[str, str] = {}
ROWS = [
    ClipRow(path=CLIPS[0], class_id="neutral", actor="0", gender="male", sentence="0", intensity="1"),
    ClipRow(path=CLIPS[1], class_id="neutral", actor="10", gender="female", sentence="0", intensity="1"),
    ClipRow(path=CLIPS[2], class_id="tired", actor="55", gender="male", sentence="2", intensity="0"),
    ClipRow(path=CLIPS[3], class_id="intense", actor="55", gender="male", sentence="2", intensity="2"),
]
