"""IEMOCAP: turns of both partners of two sessions, improvised and scripted, one without agreement, a whole dialog."""

from dataclasses import replace

from ser_scripts.corpora import ClipRow

_ONE, _TWO = "IEMOCAP_full_release/Session1", "IEMOCAP_full_release/Session5"
CLIPS = [
    f"{_ONE}/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav",
    f"{_ONE}/sentences/wav/Ses01F_impro01/Ses01F_impro01_M000.wav",
    f"{_ONE}/sentences/wav/Ses01F_impro01/Ses01F_impro01_M001.wav",
    f"{_ONE}/sentences/wav/Ses01M_script01_1/Ses01M_script01_1_F000.wav",
    f"{_TWO}/sentences/wav/Ses05F_script01_1b/Ses05F_script01_1b_F003.wav",
    f"{_TWO}/sentences/wav/Ses05F_script01_1b/Ses05F_script01_1b_M003.wav",
    f"{_TWO}/sentences/wav/Ses05F_script01_1b/Ses05F_script01_1b_M004.wav",
    f"{_ONE}/dialog/wav/Ses01F_impro01.wav",
    f"{_TWO}/dialog/wav/Ses05F_script01_1b.wav",
]
TABLES = {
    f"{_ONE}/dialog/EmoEvaluation/Ses01F_impro01.txt": (
        "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\n"
        "C-E2:\tNeutral;\t()\n"
        "C-E3:\tNeutral;\t()\n"
        "C-E4:\tNeutral;\t()\n"
        "C-F1:\tNeutral;\t(curious)\n"
        "A-E3:\tval 3; act 2; dom  2;\t()\n"
        "A-E4:\tval 2; act 3; dom  3;\t(mildly aggravated but staying polite, attitude)\n"
        "A-F1:\tval 3; act 2; dom  1;\t()\n\n"
        "[10.0100 - 11.3925]\tSes01F_impro01_M000\texc\t[4.0000, 3.5000, 2.5000]\n"
        "C-E2:\tExcited;\t()\n"
        "C-E3:\tHappiness; Excited;\t()\n"
        "C-E4:\tExcited; Surprise; Other;\t(relieved)\n"
        "C-M1:\tAnger;\t()\n"
        "A-E3:\tval 4; act 3; dom  2;\t()\n\n"
        "[14.8872 - 18.0175]\tSes01F_impro01_M001\txxx\t[2.0000, 3.0000, 3.0000]\n"
        "C-E2:\tFrustration;\t()\n"
        "C-E3:\tAnger;\t()\n"
        "C-E4:\tDisgust;\t()\n\n"
    ),
    f"{_ONE}/dialog/EmoEvaluation/Ses01M_script01_1.txt": (
        "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\r\n\r\n"
        "[1.0000 - 2.0000]\tSes01M_script01_1_F000\thap\t[4.3333, 3.0000, 2.6667]\r\n"
        "C-E1:\tHappiness;\t()\r\n"
        "C-E2:\tHappiness;\t()\r\n"
        "C-E3:\tNeutral state;\t()\r\n\r\n"
    ),
    f"{_TWO}/dialog/EmoEvaluation/Ses05F_script01_1b.txt": (
        "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        "[1.5000 - 2.5000]\tSes05F_script01_1b_F003\tfru\t[1.5000, 4.0000, 4.5000]\n"
        "C-E1:\tFrustration;\t()\n"
        "C-E5:\tFrustration;\t()\n"
        "C-E6:\tAnger;\t()\n\n"
        "[3.5000 - 4.5000]\tSes05F_script01_1b_M003\toth\t[3.0000, 3.0000, 3.0000]\n"
        "C-E1:\tOther;\t(puzzled)\n"
        "C-E5:\tOther;\t()\n"
        "C-E6:\tNeutral;\t()\n\n"
        "[5.5000 - 6.5000]\tSes05F_script01_1b_M004\tang\t[1.0000, 5.0000, 5.0000]\n"
        "C-E1:\tAnger;\t()\n"
        "C-E5:\tAnger;\t()\n"
        "C-E6:\tAnger;\t()\n\n"
    ),
    f"{_ONE}/dialog/EmoEvaluation/Categorical/Ses01F_impro01_e2_cat.txt": (
        "Ses01F_impro01_F000 :Neutral state; ()\nSes01F_impro01_M000 :Excited; ()\n"
    ),
    f"{_ONE}/dialog/transcriptions/Ses01F_impro01.txt": (
        "Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.\n"
        "Ses01F_impro01_M000 [010.0100-011.3925]: Yeah.\n"
        "Ses01F_impro01_MXX0 [011.3925-011.5000]: Mm.\n"
    ),
}


def _row(number: int, class_id: str, actor: str, vad: tuple[float, float, float], **more: object) -> ClipRow:
    return ClipRow(
        path=CLIPS[number],
        class_id=class_id,
        actor=actor,
        gender="female" if actor.endswith("F") else "male",
        group=actor[:5],
        valence=vad[0],
        arousal=vad[1],
        dominance=vad[2],
        **more,
    )


_NO_AGREEMENT = "raters did not agree (xxx)"
ROWS = [
    _row(
        0,
        "neutral",
        "Ses01F",
        (2.5, 2.5, 2.5),
        sentence="Excuse me.",
        style="improvised",
        votes=(("neutral", 3.0),),
    ),
    _row(
        1,
        "excited",
        "Ses01M",
        (4.0, 3.5, 2.5),
        sentence="Yeah.",
        style="improvised",
        votes=(("excited", 1 + 1 / 2 + 1 / 3), ("happy", 1 / 2), ("other", 1 / 3), ("surprised", 1 / 3)),
    ),
    _row(
        2,
        "",
        "Ses01M",
        (2.0, 3.0, 3.0),
        style="improvised",
        votes=(("angry", 1.0), ("disgusted", 1.0), ("frustrated", 1.0)),
        set_aside=_NO_AGREEMENT,
    ),
    _row(3, "happy", "Ses01F", (4.3333, 3.0, 2.6667), style="scripted", votes=(("happy", 2.0), ("neutral", 1.0))),
    _row(4, "frustrated", "Ses05F", (1.5, 4.0, 4.5), style="scripted", votes=(("angry", 1.0), ("frustrated", 2.0))),
    _row(5, "other", "Ses05M", (3.0, 3.0, 3.0), style="scripted", votes=(("neutral", 1.0), ("other", 2.0))),
    _row(6, "angry", "Ses05M", (1.0, 5.0, 5.0), style="scripted", votes=(("angry", 3.0),)),
]


def _aside(number: int, labels: str) -> ClipRow:
    row = ROWS[number]
    return replace(row, class_id="", set_aside=f"{row.class_id} is not among the labels '{labels}'")


_MERGED = (("happy", 1 + 1 / 2 + 1 / 3 + 1 / 2), ("other", 1 / 3), ("surprised", 1 / 3))
LABEL_ROWS = {
    "4-class": [
        ROWS[0],
        replace(ROWS[1], class_id="happy", votes=_MERGED),
        *ROWS[2:4],
        _aside(4, "4-class"),
        _aside(5, "4-class"),
        ROWS[6],
    ],
    "4-class-no-excited": [
        ROWS[0],
        _aside(1, "4-class-no-excited"),
        *ROWS[2:4],
        _aside(4, "4-class-no-excited"),
        _aside(5, "4-class-no-excited"),
        ROWS[6],
    ],
    "6-class": [*ROWS[:5], _aside(5, "6-class"), ROWS[6]],
    "attributes": [
        replace(row, class_id="other", set_aside=None) if row.set_aside == _NO_AGREEMENT else row for row in ROWS
    ],
}
