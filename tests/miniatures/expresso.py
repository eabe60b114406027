"""Expresso: clips with and without a second word, a long one on two sides, a style that is no emotion, a dialogue."""

from ser_scripts.corpora import ClipRow

_READ = "expresso/audio_48khz/read"
CLIPS = [
    f"{_READ}/ex01/confused/base/ex01_confused_00001.wav",
    f"{_READ}/ex01/default/base/ex01_default_emphasis_00010.wav",
    f"{_READ}/ex02/default/longform/ex02_default_longform_00001.wav",
    f"{_READ}/ex02/enunciated/base/ex02_enunciated_00007.wav",
    f"{_READ}/ex03/laughing/base/ex03_laughing_00002.wav",
    f"{_READ}/ex04/whisper/base/ex04_whisper_00003.wav",
    "expresso/audio_48khz/conversational/ex01-ex02/default-default/ex01-ex02_default-default_005.wav",
]
TABLES = {
    "expresso/read_transcriptions.txt": (
        "ex01_confused_00001\tSay that again?\nex01_default_emphasis_00010\tI *never* said so.\n"
        "ex02_default_longform_00001\tOnce upon a time ...\nex03_laughing_00002\t<laugh> Oh no.\n"
    ),
    "expresso/splits/train.txt": (
        "ex01_confused_00001\nex02_default_longform_00001\t(60.0s,)\nex01-ex02_default-default_005\t(60.0s,)\n"
    ),
    "expresso/splits/dev.txt": "ex01_default_emphasis_00010\nex02_default_longform_00001\t(,60.0s)\n",
    "expresso/splits/test.txt": "ex03_laughing_00002\n",
}
ROWS = [
    ClipRow(
        path=CLIPS[0],
        class_id="confused",
        actor="ex01",
        gender="male",
        sentence="Say that again?",
        partition="train",
    ),
    ClipRow(
        path=CLIPS[1],
        class_id="neutral",
        actor="ex01",
        gender="male",
        sentence="I *never* said so.",
        style="emphasis",
        partition="validation",
    ),
    ClipRow(
        path=CLIPS[2],
        class_id="neutral",
        actor="ex02",
        gender="female",
        sentence="Once upon a time ...",
        style="longform",
    ),
    ClipRow(
        path=CLIPS[3],
        class_id="",
        actor="ex02",
        gender="female",
        set_aside="enunciated is a way of speaking, no emotion",
    ),
    ClipRow(
        path=CLIPS[4],
        class_id="laughing",
        actor="ex03",
        gender="male",
        sentence="<laugh> Oh no.",
        partition="test",
    ),
    ClipRow(path=CLIPS[5], class_id="whispering", actor="ex04", gender="female"),
]
