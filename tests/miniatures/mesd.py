"""MESD: the three voices, both word lists, a word of two words, and noise-reduced copies."""

from ser_scripts.corpora import ClipRow

_TOP = "Mexican Emotional Speech Database (MESD)"
CLIPS = [
    f"{_TOP}/Anger_F_B_furia.wav",
    f"{_TOP}/Disgust_M_A_nunca.wav",
    f"{_TOP}/Happiness_C_B_clavel.wav",
    f"{_TOP}/Neutral_C_A_de_nada.wav",
    f"{_TOP} reduced noise/Anger_F_B_furia.wav",
]
TABLES: dict[str, str] = {}
ROWS = [
    ClipRow(path=CLIPS[0], class_id="angry", actor="", gender="female", sentence="furia"),
    ClipRow(path=CLIPS[1], class_id="disgusted", actor="", gender="male", sentence="nunca"),
    ClipRow(path=CLIPS[2], class_id="happy", actor="", gender="unknown", sentence="clavel"),
    ClipRow(path=CLIPS[3], class_id="neutral", actor="", gender="unknown", sentence="de_nada"),
]
