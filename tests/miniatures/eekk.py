"""EEKK: TextGrids in the long and the short text format, and a clip in its emotion's folder. It has one speaker."""

from ser_scripts.corpora import ClipRow

CLIPS = [
    "ekorpus/120289.wav",
    "ekorpus/13085.wav",
    "ekorpus/13721.wav",
    "sorted/sadness/121274.wav",
]
_LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "sentence"
        xmin = 0
        xmax = 1.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 1.5
            text = "%s"
    item [2]:
        class = "IntervalTier"
        name = "word"
        xmin = 0
        xmax = 1.5
        intervals: size = 0
    item [3]:
        class = "IntervalTier"
        name = "emotion"
        xmin = 0
        xmax = 1.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 1.5
            text = "%s"
"""
_SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
1.5
<exists>
2
"IntervalTier"
"emotion"
0
1.5
1
0
1.5
"anger"
"IntervalTier"
"sentence"
0
1.5
1
0
1.5
""
"""
TABLES = {
    "ekorpus/120289.TextGrid": _LONG % ('Ta ütles: ""ei"".', "neutral"),
    "ekorpus/13085.TextGrid": _LONG % ("Väga tore.", "joy"),
    "ekorpus/13721.TextGrid": _SHORT,
}
ROWS = [
    ClipRow(path=CLIPS[0], class_id="neutral", actor="reader", gender="female", sentence='Ta ütles: "ei".'),
    ClipRow(path=CLIPS[1], class_id="happy", actor="reader", gender="female", sentence="Väga tore."),
    ClipRow(path=CLIPS[2], class_id="angry", actor="reader", gender="female"),
    ClipRow(path=CLIPS[3], class_id="sad", actor="reader", gender="female"),
]
