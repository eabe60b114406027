"""CaFE: both intensities, neutral without one, and a folder whose name came out garbled."""

from ser_scripts.corpora import ClipRow

CLIPS = [
    "CaFE_48k/ColŠre/Faible/01-C-1-1.wav",
    "CaFE_48k/ColŠre/Fort/12-C-2-6.wav",
    "CaFE_48k/Neutre/01-N-1.wav",
    "CaFE_48k/Neutre/08-N-6.wav",
    "CaFE_48k/Surprise/Faible/02-S-1-5.wav",
]
TABLES = {"CaFE_48k/Readme.txt": "AA-E-I-S.wav\n"}
ROWS = [
    ClipRow(path=CLIPS[0], class_id="angry", actor="01", gender="male", sentence="1", intensity="low"),
    ClipRow(path=CLIPS[1], class_id="angry", actor="12", gender="female", sentence="6", intensity="high"),
    ClipRow(path=CLIPS[2], class_id="neutral", actor="01", gender="male", sentence="1"),
    ClipRow(path=CLIPS[3], class_id="neutral", actor="08", gender="female", sentence="6"),
    ClipRow(path=CLIPS[4], class_id="surprised", actor="02", gender="female", sentence="5", intensity="low"),
]
