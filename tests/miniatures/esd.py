"""ESD: both languages, with the folders of the sides and without them, a flat folder, and the transcripts."""

from ser_scripts.corpora import ClipRow

CLIPS = [
    "0001/Angry/train/0001_000402.wav",
    "0001/Neutral/evaluation/0001_000001.wav",
    "0010/Surprise/test/0010_001425.wav",
    "0011/Happy/0011_001050.wav",
    "0015/Sad/0015_001051.wav",
    "0020_000351.wav",
]
TABLES = {
    "0001/0001.txt": "0001_000001\t打远一看，它们的确很是美丽，\t中立\n",
    "0011/0011.txt": "0011_001050\tThe nine the eggs, I keep.\tHappy\n",
}
ROWS = [
    ClipRow(
        path=CLIPS[0],
        class_id="angry",
        actor="0001",
        gender="female",
        sentence="zh-052",
        language="zh",
        partition="train",
    ),
    ClipRow(
        path=CLIPS[1],
        class_id="neutral",
        actor="0001",
        gender="female",
        sentence="zh-001",
        language="zh",
        partition="validation",
    ),
    ClipRow(
        path=CLIPS[2],
        class_id="surprised",
        actor="0010",
        gender="male",
        sentence="zh-025",
        language="zh",
        partition="test",
    ),
    ClipRow(path=CLIPS[3], class_id="happy", actor="0011", gender="male", sentence="en-350", language="en"),
    ClipRow(path=CLIPS[4], class_id="sad", actor="0015", gender="female", sentence="en-001", language="en"),
    ClipRow(path=CLIPS[5], class_id="angry", actor="0020", gender="male", sentence="en-001", language="en"),
]
