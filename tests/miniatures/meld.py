"""MELD: one name on all three sides, a minor character, and clips that no table lists."""

from ser_scripts.corpora import ClipRow

CLIPS = [
    "MELD.Raw/dev_splits_complete/dia0_utt0.wav",
    "MELD.Raw/dev_splits_complete/dia66_utt9.wav",
    "MELD.Raw/output_repeated_splits_test/dia0_utt0.wav",
    "MELD.Raw/output_repeated_splits_test/final_videos_testdia0_utt0.wav",
    "MELD.Raw/train/train_splits/dia0_utt0.wav",
    "MELD.Raw/train/train_splits/dia0_utt1.wav",
    "MELD.Raw/train/train_splits/dia1_utt10.wav",
]
_HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
TABLES = {
    "MELD.Raw/train/train_sent_emo.csv": _HEADER
    + "1,also I was the point person on my company's transition.,Chandler,neutral,neutral,0,0,8,21,"
    + '"00:16:16,059","00:16:21,731"\n'
    + '2,"""Wanted.""  You must\'ve had your hands full, huh?",The Interviewer,surprise,positive,0,1,8,21,'
    + '"00:16:21,940","00:16:23,442"\n'
    + '3,"No, don\'t I beg of you!",Monica,fear,negative,1,10,9,23,"0:02:10,640","0:02:14,480"\n',
    "MELD.Raw/dev_sent_emo.csv": _HEADER
    + '1,"Oh my God, he\x92s lost it.",Phoebe,sadness,negative,0,0,4,7,"00:20:57,256","00:21:00,049"\n',
    "MELD.Raw/test_sent_emo.csv": _HEADER
    + '1,Why do all you\'re coffee mugs have numbers?,Joey,joy,positive,0,0,4,6,"0:10:44,769","0:10:48"\n',
}
ROWS = [
    ClipRow(
        path=CLIPS[0],
        class_id="sad",
        actor="Phoebe",
        gender="female",
        group="dev-dia0",
        sentence="Oh my God, he\x92s lost it.",
        partition="validation",
    ),
    ClipRow(
        path=CLIPS[2],
        class_id="happy",
        actor="Joey",
        gender="male",
        group="test-dia0",
        sentence="Why do all you're coffee mugs have numbers?",
        partition="test",
    ),
    ClipRow(
        path=CLIPS[4],
        class_id="neutral",
        actor="Chandler",
        gender="male",
        group="train-dia0",
        sentence="also I was the point person on my company's transition.",
        partition="train",
    ),
    ClipRow(
        path=CLIPS[5],
        class_id="surprised",
        actor="The Interviewer",
        gender="unknown",
        group="train-dia0",
        sentence='"Wanted."  You must\'ve had your hands full, huh?',
        partition="train",
    ),
    ClipRow(
        path=CLIPS[6],
        class_id="fearful",
        actor="Monica",
        gender="female",
        group="train-dia1",
        sentence="No, don't I beg of you!",
        partition="train",
    ),
]
