"""MEAD: the same clip numbers in every folder, a speaker with the folder `audio` and one without."""

from ser_scripts.corpora import ClipRow

CLIPS = [
    "M003/audio/angry/level_1/001.wav",
    "M003/audio/angry/level_3/001.wav",
    "M003/audio/neutral/level_1/040.wav",
    "W009/contempt/level_2/001.flac",
    "W009/surprised/level_2/001.flac",
]
TABLES: dict[str, str] = {}
ROWS = [
    ClipRow(path=CLIPS[0], class_id="angry", actor="M003", gender="male", intensity="level_1"),
    ClipRow(path=CLIPS[1], class_id="angry", actor="M003", gender="male", intensity="level_3"),
    ClipRow(path=CLIPS[2], class_id="neutral", actor="M003", gender="male", intensity="level_1"),
    ClipRow(path=CLIPS[3], class_id="contempt", actor="W009", gender="female", intensity="level_2"),
    ClipRow(path=CLIPS[4], class_id="surprised", actor="W009", gender="female", intensity="level_2"),
]
