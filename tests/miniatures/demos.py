"""DEMoS: prototypical, non-prototypical and neutral clips of two speakers."""

from ser_scripts.corpora import ClipRow

CLIPS = [
    "wav_DEMoS/DEMOS/NP_f_61_gio02c.wav",
    "wav_DEMoS/DEMOS/NP_m_66_tri17b.wav",
    "wav_DEMoS/DEMOS/PR_f_60_gio90a.wav",
    "wav_DEMoS/DEMOS/PR_m_66_col01c.wav",
    "wav_DEMoS/NEU/f_61_neu00a.wav",
    "wav_DEMoS/NEU/m_66_neu03b.wav",
]
TABLES: dict[str, str] = {}
ROWS = [
    ClipRow(path=CLIPS[0], class_id="happy", actor="61", gender="female", style="non-prototypical"),
    ClipRow(path=CLIPS[1], class_id="sad", actor="66", gender="male", style="non-prototypical"),
    ClipRow(path=CLIPS[2], class_id="happy", actor="60", gender="female", style="prototypical"),
    ClipRow(path=CLIPS[3], class_id="guilty", actor="66", gender="male", style="prototypical"),
    ClipRow(path=CLIPS[4], class_id="neutral", actor="61", gender="female"),
    ClipRow(path=CLIPS[5], class_id="neutral", actor="66", gender="male"),
]
