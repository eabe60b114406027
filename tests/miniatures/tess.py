"""TESS: folders of one speaker and emotion, spelled in several ways, and the clip with the odd name."""

from ser_scripts.corpora import ClipRow

_TOP = "TESS Toronto emotional speech set data"
CLIPS = [
    f"{_TOP}/OAF_Fear/OAF_food_fear.wav",
    f"{_TOP}/OAF_Pleasant_surprise/OAF_back_ps.wav",
    f"{_TOP}/OAF_neutral/OA_bite_neutral.wav",
    f"{_TOP}/YAF_pleasant_surprised/YAF_back_ps.wav",
    f"{_TOP}/YAF_sad/YAF_youth_sad.wav",
]
TABLES: dict[str, str] = {}
ROWS = [
    ClipRow(path=path, class_id=class_id, actor=actor, gender="female", sentence=word)
    for path, (class_id, actor, word) in zip(
        CLIPS,
        [
            ("fearful", "OAF", "food"),
            ("surprised", "OAF", "back"),
            ("neutral", "OAF", "bite"),
            ("surprised", "YAF", "back"),
            ("sad", "YAF", "youth"),
        ],
        strict=True,
    )
]
