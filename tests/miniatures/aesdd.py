"""AESDD: a second take, and utterance 20."""

from ser_scripts.corpora import ClipRow

CLIPS = [
    "anger/a03 (4).wav",
    "anger/a20 (6).wav",
    "fear/f18 (5).wav",
    "fear/f18 (5)b.wav",
    "sadness/s05 (4).wav",
]
TABLES = {"Tools and Documentation/readme.txt": "Acted Emotional Speech Dynamic Database v1.0\n"}
ROWS = [
    ClipRow(path=path, class_id=class_id, actor=actor, gender="unknown", sentence=sentence)
    for path, (class_id, actor, sentence) in zip(
        CLIPS,
        [
            ("angry", "4", "03"),
            ("angry", "6", "20"),
            ("fearful", "5", "18"),
            ("fearful", "5", "18"),
            ("sad", "4", "05"),
        ],
        strict=True,
    )
]
