"""MASC: two speakers, in the layout that is assumed (names of the deepest folders and clips are free)."""

from ser_scripts.corpora import ClipRow

CLIPS = [
    "data/001/anger/phrases/101.wav",
    "data/001/elation/sentences/101.wav",
    "data/001/neutral/paragraphs/1.wav",
    "data/068/panic/phrases/101.wav",
    "data/068/sadness/phrases/101.wav",
]
TABLES: dict[str, str] = {}
ROWS = [
    ClipRow(path=CLIPS[0], class_id="angry", actor="001", gender="unknown"),
    ClipRow(path=CLIPS[1], class_id="happy", actor="001", gender="unknown"),
    ClipRow(path=CLIPS[2], class_id="neutral", actor="001", gender="unknown"),
    ClipRow(path=CLIPS[3], class_id="fearful", actor="068", gender="unknown"),
    ClipRow(path=CLIPS[4], class_id="sad", actor="068", gender="unknown"),
]
