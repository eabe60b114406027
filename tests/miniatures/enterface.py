"""eNTERFACE'05: names with slips, two subjects who share names, and the subject that was not cut."""

from ser_scripts.corpora import ClipRow

_TOP = "enterface database"
CLIPS = [
    f"{_TOP}/subject 11/anger/sentence 1/s12_an_1.wav",
    f"{_TOP}/subject 12/anger/sentence 1/s12_an_1.wav",
    f"{_TOP}/subject 16/surprise/sentence 3/s16_su_3avi.wav",
    f"{_TOP}/subject 3/fear/sentence 5/s_3_fe_5.wav",
    f"{_TOP}/subject 6/fear/s6_fe.wav",
]
TABLES = {f"{_TOP}/subject 11/anger/sentence 1/Thumbs.db": ""}
ROWS = [
    ClipRow(path=CLIPS[0], class_id="angry", actor="11", gender="unknown", sentence="anger 1"),
    ClipRow(path=CLIPS[1], class_id="angry", actor="12", gender="unknown", sentence="anger 1"),
    ClipRow(path=CLIPS[2], class_id="surprised", actor="16", gender="unknown", sentence="surprise 3"),
    ClipRow(path=CLIPS[3], class_id="fearful", actor="3", gender="unknown", sentence="fear 5"),
]
