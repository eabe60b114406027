"""CASIA: one sentence of all speakers, in the release's tree and in the names of the copy."""

from ser_scripts.corpora import ClipRow

CLIPS = [
    "CASIA/ZhaoZuoxiang/sad/201.wav",
    "CASIA/liuchanhg/angry/201.wav",
    "CASIA/liuchanhg/fear/201.wav",
    "CASIA/wangzhe/surprise/250.wav",
    "CASIA/zhaoquanyin/neutral/201.wav",
    "copy/6/happy/201-happy-ZhaoZuoxiang.wav",
]
TABLES: dict[str, str] = {}
ROWS = [
    ClipRow(path=CLIPS[0], class_id="sad", actor="zhaozuoxiang", gender="male", sentence="201"),
    ClipRow(path=CLIPS[1], class_id="angry", actor="liuchanhg", gender="female", sentence="201"),
    ClipRow(path=CLIPS[2], class_id="fearful", actor="liuchanhg", gender="female", sentence="201"),
    ClipRow(path=CLIPS[3], class_id="surprised", actor="wangzhe", gender="male", sentence="250"),
    ClipRow(path=CLIPS[4], class_id="neutral", actor="zhaoquanyin", gender="female", sentence="201"),
    ClipRow(path=CLIPS[5], class_id="happy", actor="zhaozuoxiang", gender="male", sentence="201"),
]
