"""TurEV-DB: one clip of each emotion, as in the authors' repository."""

from ser_scripts.corpora import ClipRow

CLIPS = [
    "Sound Source/Angry/1984_kz_konuk.wav",
    "Sound Source/Calm/1234_sk_acik.wav",
    "Sound Source/Happy/1234_mt_acik.wav",
    "Sound Source/Sad/1157_hl_yigilmak.wav",
]
TABLES = {"README.md": "# Turkish Emotion-Voice Database TurEV-DB\n"}
ROWS = [
    ClipRow(path=CLIPS[0], class_id="angry", actor="1984", gender="unknown", sentence="konuk"),
    ClipRow(path=CLIPS[1], class_id="calm", actor="1234", gender="unknown", sentence="acik"),
    ClipRow(path=CLIPS[2], class_id="happy", actor="1234", gender="unknown", sentence="acik"),
    ClipRow(path=CLIPS[3], class_id="sad", actor="1157", gender="unknown", sentence="yigilmak"),
]
