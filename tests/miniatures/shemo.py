"""ShEMO: a woman and a man of the same number, and one of the rare fearful clips."""

from ser_scripts.corpora import ClipRow

CLIPS = ["female/F01F02.wav", "female/F21W04.wav", "male/M01A01.wav", "male/M21N12.wav"]
TABLES: dict[str, str] = {}
ROWS = [
    ClipRow(path=CLIPS[0], class_id="fearful", actor="F01", gender="female"),
    ClipRow(path=CLIPS[1], class_id="surprised", actor="F21", gender="female"),
    ClipRow(path=CLIPS[2], class_id="angry", actor="M01", gender="male"),
    ClipRow(path=CLIPS[3], class_id="neutral", actor="M21", gender="male"),
]
