"""MSP-Podcast: every side of the release, an unknown speaker, no agreement, a label `other`, an older release."""

from dataclasses import replace

from ser_scripts.corpora import ClipRow

CLIPS = [
    "Audios/MSP-PODCAST_0001_0008.wav",
    "Audios/MSP-PODCAST_0001_0019.wav",
    "Audios/MSP-PODCAST_0002_0033.wav",
    "Audios/MSP-PODCAST_0153_0216_0001.wav",
    "Audios/MSP-PODCAST_0345_0100.wav",
    "Audios/MSP-PODCAST_1023_0235.wav",
    "Audios/MSP-PODCAST_test3_0001.wav",
    "Previous_releases_information/files_removed_from_prev_versions/v1.10_removed_files/MSP-PODCAST_0001_0008.wav",
]
TABLES = {
    "Labels/labels_consensus.csv": (
        "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n"
        "MSP-PODCAST_0001_0008.wav,N,4.6,3.8,5.0,127,Male,Test1\n"
        "MSP-PODCAST_0001_0019.wav,X,3.2,4.4,4.2,127,Male,Test1\n"
        "MSP-PODCAST_0002_0033.wav,U,3.8,3.6,4.0,Unknown,Female,Train\n"
        "MSP-PODCAST_0153_0216_0001.wav,H,5.0,6.2,5.4,41,Female,Train\n"
        "MSP-PODCAST_0345_0100.wav,O,5.2,2.2,5.8,7,Female,Development\n"
        "MSP-PODCAST_1023_0235.wav,A,6.4,1.8,6.2,905,Male,Test2\n"
    ),
    "Labels/labels_detailed.csv": (
        "FileName,WorkerID,EmoClass_Major,EmoClass_Second,EmoAct,EmoVal,EmoDom\n"
        'MSP-PODCAST_0001_0008.wav,WORKER00000001,Neutral,"Neutral,Concerned",4.0,4.0,5.0\n'
        "MSP-PODCAST_0001_0008.wav,WORKER00000002,Neutral,Neutral,5.0,4.0,5.0\n"
        "MSP-PODCAST_0001_0008.wav,WORKER00000003,Sad,Sad,5.0,3.0,5.0\n"
        "MSP-PODCAST_0001_0019.wav,WORKER00000001,Contempt,Contempt,3.0,4.0,4.0\n"
        "MSP-PODCAST_0001_0019.wav,WORKER00000002,Fear,Fear,3.0,4.0,4.0\n"
        "MSP-PODCAST_0153_0216_0001.wav,WORKER00000004,Happy,Happy,5.0,6.0,5.0\n"
        "MSP-PODCAST_0345_0100.wav,WORKER00000004,Other-worried,Other-worried,5.0,2.0,6.0\n"
        "MSP-PODCAST_0345_0100.wav,WORKER00000005,Other-nervous,Other-nervous,5.0,2.0,6.0\n"
        "MSP-PODCAST_0345_0100.wav,WORKER00000006,Surprise,Surprise,5.0,2.0,6.0\n"
        "MSP-PODCAST_1023_0235.wav,WORKER00000006,Angry,Angry,6.0,2.0,6.0\n"
    ),
    "Previous_releases_information/previous_releases_info/v1.10/Labels/labels_consensus.csv": (
        "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n"
        "MSP-PODCAST_0001_0008.wav,S,4.6,3.8,5.0,127,Male,Validation\n"
    ),
}
ROWS = [
    ClipRow(
        path=CLIPS[0],
        class_id="neutral",
        actor="127",
        gender="male",
        partition="test1",
        valence=3.8,
        arousal=4.6,
        dominance=5.0,
        votes=(("neutral", 2.0), ("sad", 1.0)),
    ),
    ClipRow(
        path=CLIPS[1],
        class_id="",
        actor="127",
        gender="male",
        partition="test1",
        valence=4.4,
        arousal=3.2,
        dominance=4.2,
        votes=(("contempt", 1.0), ("fearful", 1.0)),
        set_aside="raters did not agree (X)",
    ),
    ClipRow(
        path=CLIPS[2],
        class_id="surprised",
        actor="",
        gender="female",
        partition="train",
        valence=3.6,
        arousal=3.8,
        dominance=4.0,
    ),
    ClipRow(
        path=CLIPS[3],
        class_id="happy",
        actor="41",
        gender="female",
        partition="train",
        valence=6.2,
        arousal=5.0,
        dominance=5.4,
        votes=(("happy", 1.0),),
    ),
    ClipRow(
        path=CLIPS[4],
        class_id="other",
        actor="7",
        gender="female",
        partition="validation",
        valence=2.2,
        arousal=5.2,
        dominance=5.8,
        votes=(("other", 2.0), ("surprised", 1.0)),
    ),
    ClipRow(
        path=CLIPS[5],
        class_id="angry",
        actor="905",
        gender="male",
        partition="test2",
        valence=1.8,
        arousal=6.4,
        dominance=6.2,
        votes=(("angry", 1.0),),
    ),
    ClipRow(
        path=CLIPS[6],
        class_id="",
        actor="",
        gender="unknown",
        partition="test3",
        set_aside="blind test set (Test3)",
    ),
]
LABEL_ROWS = {
    "8-class": [
        *ROWS[:4],
        replace(ROWS[4], class_id="", set_aside="other is not among the labels '8-class'"),
        *ROWS[5:],
    ],
    "attributes": [ROWS[0], replace(ROWS[1], class_id="other", set_aside=None), *ROWS[2:]],
}
