"""Thorsten: one sentence in several ways of speaking, under the same name. It has one speaker."""

from ser_scripts.corpora import ClipRow

_ONE, _TWO = "0aaf116f8774a140909231e0b610dc98", "4abd7cf4f7e10b5d91570fdb4b9e8138"
CLIPS = [
    f"thorsten-emotional_v02/amused/{_ONE}.wav",
    f"thorsten-emotional_v02/drunk/{_ONE}.wav",
    f"thorsten-emotional_v02/neutral/{_ONE}.wav",
    f"thorsten-emotional_v02/sleepy/{_TWO}.wav",
    f"thorsten-emotional_v02/whisper/{_TWO}.wav",
]
TABLES = {
    "thorsten-emotional_v02/thorsten-emotional-metadata.csv": f"{_ONE}|Mist, wieder nichts geschafft.\n{_TWO}|Ja!\n",
}
ROWS = [
    ClipRow(path=CLIPS[0], class_id="amused", actor="thorsten", gender="male", sentence=_ONE),
    ClipRow(path=CLIPS[1], class_id="drunk", actor="thorsten", gender="male", sentence=_ONE),
    ClipRow(path=CLIPS[2], class_id="neutral", actor="thorsten", gender="male", sentence=_ONE),
    ClipRow(path=CLIPS[3], class_id="sleepy", actor="thorsten", gender="male", sentence=_TWO),
    ClipRow(path=CLIPS[4], class_id="whispering", actor="thorsten", gender="male", sentence=_TWO),
]
