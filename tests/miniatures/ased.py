"""ASED: every folder, the name with a capital letter, and the speaker with two genders."""

from ser_scripts.corpora import ClipRow

CLIPS = [
    "ASED_V1/01Neutral/n1-06-01-02-65.wav",
    "ASED_V1/02Fearful/f2-01-02-01-01.wav",
    "ASED_V1/03Happy/h3-02-01-02-65.wav",
    "ASED_V1/04Sad/S4-04-02-01-29.wav",
    "ASED_V1/04Sad/s4-03-02-01-23.wav",
    "ASED_V1/04Sad/s4-04-01-02-23.wav",
    "ASED_V1/05Angry/a5-03-02-01-23.wav",
]
TABLES: dict[str, str] = {}
ROWS = [
    ClipRow(path=CLIPS[0], class_id="neutral", actor="65", gender="male", sentence="n06"),
    ClipRow(path=CLIPS[1], class_id="fearful", actor="01", gender="female", sentence="f01"),
    ClipRow(path=CLIPS[2], class_id="happy", actor="65", gender="male", sentence="h02"),
    ClipRow(path=CLIPS[3], class_id="sad", actor="29", gender="female", sentence="s04"),
    ClipRow(path=CLIPS[4], class_id="sad", actor="23", gender="female", sentence="s03"),
    ClipRow(path=CLIPS[5], class_id="sad", actor="23", gender="female", sentence="s04"),
    ClipRow(path=CLIPS[6], class_id="angry", actor="23", gender="female", sentence="a03"),
]
