"""BAUM-1: both sets with their tables, states that begin alike, a clip without a row, and one in its state's folder."""

from ser_scripts.corpora import ClipRow

CLIPS = [
    "BAUM1a_MP4_all/s001/S001_001.wav",
    "BAUM1a_MP4_all/s002/S002_004.wav",
    "BAUM1s_MP4 - All/s001/S001_006.wav",
    "BAUM1s_MP4 - All/s001/S001_007.wav",
    "BAUM1s_MP4 - All/s002/S002_013.wav",
    "BAUM1s_MP4 - All/s002/S002_099.wav",
    "sorted/Bothered/S003_044.wav",
]
TABLES = {
    "Annotations_BAUM1a.csv": (
        "No,Subject,Gender,Clip,Emotion,Code\n1,1,f,S001_001,Anger,1\n2,2,m,S002_004,Interest (incl. curiosity),6\n"
    ),
    "Annotations_BAUM1s.csv": (
        "No,Subject,Gender,Clip,Emotion,Code\n1,1,f,S001_006,Contempt,5\n2,1,f,S001_007,Concentrating,4\n"
        "3,2,m,S002_013,Unsure,13\n"
    ),
}
ROWS = [
    ClipRow(path=CLIPS[0], class_id="angry", actor="S001", gender="female", style="acted"),
    ClipRow(path=CLIPS[1], class_id="interested", actor="S002", gender="male", style="acted"),
    ClipRow(path=CLIPS[2], class_id="contempt", actor="S001", gender="female", style="spontaneous"),
    ClipRow(path=CLIPS[3], class_id="concentrating", actor="S001", gender="female", style="spontaneous"),
    ClipRow(path=CLIPS[4], class_id="unsure", actor="S002", gender="male", style="spontaneous"),
    ClipRow(
        path=CLIPS[5],
        class_id="",
        actor="S002",
        gender="unknown",
        style="spontaneous",
        set_aside="no row in the annotation tables",
    ),
    ClipRow(path=CLIPS[6], class_id="bothered", actor="S003", gender="unknown"),
]
