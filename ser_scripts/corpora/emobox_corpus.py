"""A corpus as the EmoBox benchmark lists it, and EmoBox' folds.

EmoBox publishes `data/<corpus>/<corpus>.jsonl`, `label_map.json` and `fold_<n>/<corpus>_train_fold_<n>.jsonl`, `_test_`
and for some corpora `_valid_`. A line is an object with at least key, wav (`downloads/<corpus>/...`) and emo. EmoBox
names no speakers, and many of its folds share them between train and test: with speakers known, the leak check
refuses those.

Z. Ma, M. Chen, H. Zhang, Z. Zheng, W. Chen, X. Li, J. Ye, X. Chen, T. Hain: EmoBox: Multilingual Multi-corpus Speech
Emotion Recognition Toolkit and Benchmark. Proc. Interspeech 2024
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ser_eval.run_folder import read_json
from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import listed, read_text
from ser_scripts.corpora._own import check_speakers, from_path, inside, map_labels
from ser_scripts.errors import BadInput
from ser_scripts.labels import VOCABULARY

_WORDS = {
    "boredom": "bored", "disgust": "disgusted", "fear": "fearful", "surprise": "surprised", "no-agreement": None,
} | {word: word for word in VOCABULARY}  # fmt: skip
"""EmoBox' words for emotions, lower-cased, where they are not the vocabulary's."""
_SIDES = {"train": "train", "valid": "validation", "test": "test"}


def read_emobox(
    folder: Path, root: Path, labels: Mapping[str, str | None] | None = None, speaker_pattern: str | None = None
) -> list[ClipRow]:
    """Read EmoBox' list of a corpus.

    Args:
        folder: EmoBox' folder of the corpus
        root: what the clips' paths are relative to: with or without the leading `downloads/` or `downloads/<corpus>/`
        labels: from EmoBox' `emo` to the vocabulary; label_map.json when None
        speaker_pattern: as `EmoBoxCorpus.speaker_pattern`; speakers are "" without it

    Returns:
        The rows, sorted by path, which is relative to `root`. A clip that does not exist has its row, too.

    Raises:
        BadInput: a list or label map that is missing, broken or incomplete, a path that leads out of `root`, pieces of
            longer files, or no clip under `root`
    """
    lists = sorted(file for file in folder.glob("*.jsonl")) if folder.is_dir() else []
    if len(lists) != 1:
        what = listed([file.name for file in lists]) or "none"
        raise BadInput(f"{folder}: exactly one list <corpus>.jsonl is needed, as in data/emodb; there is {what}")
    lines = _lines(lists[0])
    if not root.is_dir():
        raise BadInput(f"{root}: no such folder; it is where the audio of {lists[0]} lies")
    paths = _below(root, [wav for _, wav, _ in lines], lists[0])
    rows: dict[str, ClipRow] = {}
    for path, (line, _, content) in zip(paths, lines, strict=True):
        if path in rows:
            raise BadInput(f"{lists[0]} line {line}: {path} is listed again")
        rows[path] = ClipRow(path=path, class_id=str(content["emo"]), actor="", gender="unknown")
    ordered = from_path([rows[path] for path in sorted(rows)], speaker_pattern, where=str(lists[0]))
    check_speakers(ordered, where=str(lists[0]))
    chosen = labels if labels is not None else _label_map(folder / "label_map.json")
    return map_labels(ordered, chosen, where=str(lists[0]))


def is_fold(folder: Path) -> bool:
    """Whether a folder holds the lists of an EmoBox fold."""
    return any(folder.glob("*_test_fold*.jsonl"))


def read_fold(folder: Path) -> list[tuple[str, str]]:
    """(path as EmoBox writes it, side) of every clip of a fold, train first.

    Raises:
        BadInput: not exactly one list of train and of test, or a broken list
    """
    rows = []
    for name, side in _SIDES.items():
        files = sorted(file for file in folder.glob(f"*_{name}_fold*.jsonl"))
        if len(files) > 1 or (not files and name != "valid"):
            what = listed([file.name for file in files]) or "none"
            raise BadInput(f"{folder}: exactly one list *_{name}_fold_<n>.jsonl is needed; there is {what}")
        rows += [(wav, side) for file in files for _, wav, _ in _lines(file)]
    return rows


def _lines(file: Path) -> list[tuple[int, str, dict[str, Any]]]:
    """Line number, path of the clip, and content of every line."""
    found = []
    for number, text in enumerate(read_text(file).splitlines(), start=1):
        if not text.strip():
            continue
        where = f"{file} line {number}"
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise BadInput(f"{where}: not JSON ({error})") from None
        if not isinstance(content, dict) or not {"wav", "emo"} <= content.keys():
            raise BadInput(f"{where}: expected an object with 'wav' and 'emo' at least")
        if "start_time" in content or "end_time" in content:
            raise BadInput(f"{where}: a piece of a longer file (start_time, end_time); only whole files can be read")
        found.append((number, inside(str(content["wav"]), where), content))
    if not found:
        raise BadInput(f"{file} lists no clips")
    return found


def _below(root: Path, paths: list[str], file: Path) -> list[str]:
    """The paths relative to `root`: as they stand, or without the leading folders that `root` itself stands for."""
    head = re.match(r"downloads/[^/]+/", paths[0])
    heads = ["", "downloads/", head[0]] if head else [""]
    forms = [[path.removeprefix(one) for path in paths] for one in heads if all(p.startswith(one) for p in paths)]
    exist = [sum((root / path).is_file() for path in form) for form in forms]
    best = max(exist)
    if best == 0:
        raise BadInput(f"{root} holds none of the {len(paths)} clips of {file}; the first is {paths[0]}")
    return forms[exist.index(best)]


def _label_map(file: Path) -> dict[str, str | None]:
    """EmoBox' label map, in our vocabulary."""
    if not file.is_file():
        raise BadInput(f'{file}: no such file; give "labels" in the experiment instead')
    content = read_json(file)
    if not isinstance(content, dict):
        raise BadInput(f"{file}: expected an object from label to emotion")
    strange = {raw: word for raw, word in content.items() if str(word).lower() not in _WORDS}
    if strange:
        raise BadInput(
            f"{file}: {listed([f'{raw!r} -> {word!r}' for raw, word in strange.items()])} are no emotions of the "
            f'vocabulary; give "labels" in the experiment, a map from {listed(list(content))}'
        )
    return {raw: _WORDS[str(word).lower()] for raw, word in content.items()}
