"""JL-Corpus: primary and secondary emotions, all four speakers, and the texts between the clips."""

from dataclasses import replace

from ser_scripts.corpora import ClipRow

_TOP = "Raw JL corpus (unchecked and unannotated)/JL(wav+txt)"
CLIPS = [
    f"{_TOP}/female1_angry_10a_1.wav",
    f"{_TOP}/female2_apologetic_2a_2.wav",
    f"{_TOP}/male1_excited_5b_2.wav",
    f"{_TOP}/male2_encouraging_10a_2.wav",
]
TABLES = {f"{_TOP}/female1_angry_10a_1.txt": "some words\n"}
ROWS = [
    ClipRow(path=CLIPS[0], class_id="angry", actor="female1", gender="female", sentence="primary 10"),
    ClipRow(path=CLIPS[1], class_id="apologetic", actor="female2", gender="female", sentence="secondary 2"),
    ClipRow(path=CLIPS[2], class_id="excited", actor="male1", gender="male", sentence="primary 5"),
    ClipRow(path=CLIPS[3], class_id="encouraging", actor="male2", gender="male", sentence="secondary 10"),
]
LABEL_ROWS = {
    "primary": [
        row
        if row.class_id in {"angry", "excited"}
        else replace(row, class_id="", set_aside=f"{row.class_id} is not among the labels 'primary'")
        for row in ROWS
    ]
}
