"""nEMO: the table of the release, with its blanks before the speaker and its texts with commas."""

from ser_scripts.corpora import ClipRow

CLIPS = [
    "samples/EB0_anger_6.wav",
    "samples/EB0_happiness_3.wav",
    "samples/WR0_neutral_3.wav",
    "samples/WR0_surprised_41.wav",
]
TABLES = {
    "data.tsv": (
        "file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage\n"
        "WR0_surprised_41.wav\tsurprised\tW parku rośnie ogromne drzewo.\tw parku rośnie ogromne drzewo\t"
        "        WR0\tmale\t23\n"
        "EB0_anger_6.wav\tanger\tDziunia, nie jesteś moim szefem.\tdziunia nie jesteś moim szefem\t"
        "        EB0\tfemale\t27\n"
        "EB0_happiness_3.wav\thappiness\tChodźmy w tango.\tchodźmy w tango\t        EB0\tfemale\t27\n"
        "WR0_neutral_3.wav\tneutral\tChodźmy w tango.\tchodźmy w tango\t        WR0\tmale\t23\n"
    )
}
ROWS = [
    ClipRow(path=CLIPS[0], class_id="angry", actor="EB0", gender="female", sentence="Dziunia, nie jesteś moim szefem."),
    ClipRow(path=CLIPS[1], class_id="happy", actor="EB0", gender="female", sentence="Chodźmy w tango."),
    ClipRow(path=CLIPS[2], class_id="neutral", actor="WR0", gender="male", sentence="Chodźmy w tango."),
    ClipRow(path=CLIPS[3], class_id="surprised", actor="WR0", gender="male", sentence="W parku rośnie ogromne drzewo."),
]
