"""Emotions in Polish speech: names with a dot in them, and s for fear."""

from ser_scripts.corpora import ClipRow

CLIPS = ["m1.a_nie_2.wav", "m1.n_stop_3.wav", "m3.s_trzymaj_5.wav", "m5.s_tak_1.wav"]
TABLES: dict[str, str] = {}
ROWS = [
    ClipRow(path=CLIPS[0], class_id="angry", actor="m1", gender="male", sentence="nie"),
    ClipRow(path=CLIPS[1], class_id="neutral", actor="m1", gender="male", sentence="stop"),
    ClipRow(path=CLIPS[2], class_id="fearful", actor="m3", gender="male", sentence="trzymaj"),
    ClipRow(path=CLIPS[3], class_id="fearful", actor="m5", gender="male", sentence="tak"),
]
