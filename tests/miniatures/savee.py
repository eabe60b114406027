"""SAVEE: the release's tree, where every speaker has clips of the same names."""

from ser_scripts.corpora import ClipRow

CLIPS = [
    "AudioData/DC/a01.wav",
    "AudioData/DC/n30.wav",
    "AudioData/KL/a01.wav",
    "AudioData/KL/sa15.wav",
    "AudioData/KL/su02.wav",
]
TABLES = {"AudioData/Info.txt": "'DC', 'JE', 'JK' and 'KL' are four male speakers recorded for the SAVEE database\n"}
ROWS = [
    ClipRow(path=path, class_id=class_id, actor=actor, gender="male", sentence=sentence)
    for path, (class_id, actor, sentence) in zip(
        CLIPS,
        [
            ("angry", "DC", "a01"),
            ("neutral", "DC", "n30"),
            ("angry", "KL", "a01"),
            ("sad", "KL", "sa15"),
            ("surprised", "KL", "su02"),
        ],
        strict=True,
    )
]
