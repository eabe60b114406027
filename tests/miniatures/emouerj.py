"""emoUERJ: a woman and a man of the same number."""

from ser_scripts.corpora import ClipRow

CLIPS = ["emoUERJ/m01h03.wav", "emoUERJ/m04n12.wav", "emoUERJ/w01s01.wav", "emoUERJ/w04a11.wav"]
TABLES: dict[str, str] = {}
ROWS = [
    ClipRow(path=CLIPS[0], class_id="happy", actor="m01", gender="male"),
    ClipRow(path=CLIPS[1], class_id="neutral", actor="m04", gender="male"),
    ClipRow(path=CLIPS[2], class_id="sad", actor="w01", gender="female"),
    ClipRow(path=CLIPS[3], class_id="angry", actor="w04", gender="female"),
]
