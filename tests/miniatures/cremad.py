"""CREMA-D: one take in two intensities, the clip with the odd name, votes that are tied, and the MP3 twins."""

from dataclasses import replace

from ser_scripts.corpora import ClipRow

CLIPS = [
    "AudioWAV/1001_IEO_ANG_HI.wav",
    "AudioWAV/1001_IEO_HAP_LO.wav",
    "AudioWAV/1002_DFA_NEU_XX.wav",
    "AudioWAV/1002_IEO_FEA_MD.wav",
    "AudioWAV/1040_ITH_SAD_X.wav",
    "AudioMP3/1001_IEO_ANG_HI.mp3",
]
TABLES = {
    "VideoDemographics.csv": (
        '"ActorID","Age","Sex","Race","Ethnicity"\n'
        '1001,51,"Male","Caucasian","Not Hispanic"\n'
        '1002,21,"Female","Caucasian","Not Hispanic"\n'
        '1040,42,"Male","Caucasian","Not Hispanic"\n'
    ),
    "processedResults/tabulatedVotes.csv": (
        '"","A","D","F","H","N","S","fileName","numResponses","agreement","emoVote","meanEmoResp"\n'
        '"100010",6,2,0,0,1,0,"1001_IEO_ANG_HI",9,0.666666666666667,"A",63.5\n'
        '"100002",0,0,0,3,6,0,"1001_IEO_HAP_LO",9,0.666666666666667,"N",62\n'
        '"100090",0,0,1,0,9,0,"1002_DFA_NEU_XX",10,0.9,"N",71.5\n'
        '"100091",0,0,4,0,4,1,"1002_IEO_FEA_MD",9,0.444444444444444,"F:N",50.25\n'
        '"103234",0,0,2,0,5,3,"1040_ITH_SAD_XX",10,0.5,"N",48.4\n'
        '"200010",0,0,0,9,0,0,"1001_IEO_ANG_HI",9,1,"H",63.5\n'
        '"300010",8,1,0,0,0,0,"1001_IEO_ANG_HI",9,0.888888888888889,"A",63.5\n'
        '"300002",0,0,0,9,1,0,"1001_IEO_HAP_LO",10,0.9,"H",62\n'
        '"300090",0,0,0,0,10,0,"1002_DFA_NEU_XX",10,1,"N",71.5\n'
        '"300091",0,0,9,0,1,0,"1002_IEO_FEA_MD",10,0.9,"F",50.25\n'
        '"303234",0,0,6,0,2,2,"1040_ITH_SAD_XX",10,0.6,"F",41.7\n'
    ),
}


def _votes(*counts: float) -> tuple[tuple[str, float], ...]:
    return tuple(zip(("angry", "disgusted", "fearful", "happy", "neutral", "sad"), counts, strict=True))


ROWS = [
    ClipRow(
        path=CLIPS[0],
        class_id="angry",
        actor="1001",
        gender="male",
        sentence="IEO",
        intensity="high",
        votes=_votes(6, 2, 0, 0, 1, 0),
    ),
    ClipRow(
        path=CLIPS[1],
        class_id="happy",
        actor="1001",
        gender="male",
        sentence="IEO",
        intensity="low",
        votes=_votes(0, 0, 0, 3, 6, 0),
    ),
    ClipRow(
        path=CLIPS[2],
        class_id="neutral",
        actor="1002",
        gender="female",
        sentence="DFA",
        votes=_votes(0, 0, 1, 0, 9, 0),
    ),
    ClipRow(
        path=CLIPS[3],
        class_id="fearful",
        actor="1002",
        gender="female",
        sentence="IEO",
        intensity="medium",
        votes=_votes(0, 0, 4, 0, 4, 1),
    ),
    ClipRow(
        path=CLIPS[4],
        class_id="sad",
        actor="1040",
        gender="male",
        sentence="ITH",
        votes=_votes(0, 0, 2, 0, 5, 3),
    ),
]
LABEL_ROWS = {
    "perceived_audio": [
        ROWS[0],
        replace(ROWS[1], class_id="neutral"),
        ROWS[2],
        replace(ROWS[3], class_id="", set_aside="raters' votes are tied"),
        replace(ROWS[4], class_id="neutral"),
    ],
    "perceived_audiovisual": [
        replace(ROWS[0], votes=_votes(8, 1, 0, 0, 0, 0)),
        replace(ROWS[1], votes=_votes(0, 0, 0, 9, 1, 0)),
        replace(ROWS[2], votes=_votes(0, 0, 0, 0, 10, 0)),
        replace(ROWS[3], votes=_votes(0, 0, 9, 0, 1, 0)),
        replace(ROWS[4], class_id="fearful", votes=_votes(0, 0, 6, 0, 2, 2)),
    ],
}
