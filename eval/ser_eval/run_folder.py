"""The run folder: the contract between training, evaluation and statistics.

This module is the only owner of artefact names and column names. A run folder is
`<runs>/<experiment>/<model>[+<augmentation>]/<train corpora joined by +>/seed-<n>[-fold-<k>]/`; it is built as
`<name>.partial` and renamed when it is complete, so that whatever carries its final name is whole.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ser_eval.errors import BadInput

SPEC = "spec.json"
RUN = "run.json"
ENVIRONMENT = "environment.txt"
SPLIT = "split.csv"
HISTORY = "history.csv"
GRID = "grid.csv"
"""Settings that a classical model was tried with; only of runs of that kind."""
MODEL = "model"
PREDICTIONS = "predictions"
VALIDATION = "validation.csv"
"""Optional: predictions of the validation clips by the selected weights, in the form of a prediction table; temperature
scaling is fitted on them."""
METRICS = "metrics.json"
RESULTS = "results.csv"
FOLDS = "folds.csv"
SHORTCUTS = "shortcut_baselines.csv"
RATINGS = "ratings.csv"
"""CCC per model, test corpus and dimension; only of experiments whose models predict ratings, as `RATING_BASELINES`."""
RATING_BASELINES = "rating_baselines.csv"
ROBUSTNESS = "robustness.csv"
"""What each model loses under each test condition; only of experiments with conditions."""
CLIPS = "clips.csv"
PLAN = "plan.json"
"""Optional, in the experiment folder: `{"runs": [run folders that are to exist, relative to it]}`."""
REPORT = "report"
STATS = "stats"
PARTIAL_SUFFIX = ".partial"
BESIDE_MODELS = frozenset(
    {RESULTS, FOLDS, SHORTCUTS, RATINGS, RATING_BASELINES, ROBUSTNESS, CLIPS, PLAN, REPORT, STATS}
    | {"search", "preview", "old"}
)
"""What stands beside the models' folders in that of an experiment, so that no model can have this name."""

NONE = "none"
"""Stands in results.csv for no augmentation, no condition and no fold; an empty cell would read back as missing."""
CLIP_COLUMNS = [
    "corpus", "path", "sentence", "language", "duration_seconds", "rms_db", "silence_share", "bandwidth_hz",
    "audio_sha256",
]  # fmt: skip
"""Columns of clips.csv, in the experiment folder: what evaluation and leak checks need to know of every clip."""
VOTES_PREFIX = "votes_"
"""Further columns of clips.csv, by the label that raters chose; empty for corpora without votes."""
SPLIT_COLUMNS = ["corpus", "path", "class_id", "actor", "gender", "group", "split"]
SPLIT_SIDES = ["train", "validation", "test", "unused"]
HISTORY_COLUMNS = [
    "step", "epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_uar", "learning_rate", "seconds",
]  # fmt: skip
PREDICTION_COLUMNS = ["corpus", "path", "actor", "gender", "truth", "prediction", "correct"]  # then p_<label>, sorted
PROBABILITY_PREFIX = "p_"
RATING_PREFIX = "rating_"
"""Of a model that predicts ratings, at the end of a prediction table: a clip's rating in [0, 1], 0 and 1 being the ends
of the corpus' own scale; empty where the corpus has none. Also in clips.csv, of corpora with ratings."""
PREDICTED_PREFIX = "predicted_"
"""What the model says, beside every `rating_<dimension>`."""
RESULT_KEYS = [
    "run", "experiment", "model", "augmentation",
]  # fmt: skip
"""First columns of results.csv; the factors declared in the model JSONs follow, then `RESULT_COLUMNS`."""
RESULT_COLUMNS = [
    "train_corpus", "test_corpus", "condition", "protocol", "seed", "split_seed", "train_seed", "split_sha256", "fold",
    "n_classes", "n_train", "n_test", "n_test_speakers", "uar", "uar_chance_corrected", "accuracy", "macro_f1",
    "weighted_f1", "micro_f1", "macro_precision", "nll", "brier", "ece",
]  # fmt: skip

REQUIRED = [
    "experiment", "description", "model", "augmentation", "factors", "train_corpora", "seed", "split_seed",
    "train_seed", "fold", "split_kind", "split_sha256", "splits_possible", "speaker_dependent", "speakers_unknown",
    "not_comparable", "split_notes", "labels", "n_clips", "n_speakers", "spec_digest", "manifest_sha256", "dropped",
    "left_out", "code", "seconds", "device", "threads", "chance_uar", "selected_by", "best_epoch", "epochs_run",
    "encoder",
]  # fmt: skip
"""Keys of run.json that evaluation and statistics read."""
DAMAGED = "the run folder is damaged: delete it and train again"

_RUN_NAME = re.compile(r"seed-(\d+)(?:-fold-(.+))?")


def run_name(seed: int, fold: str | None) -> str:
    """`seed-3`, or `seed-3-fold-08` in k-fold and leave-one-out designs (fold = index or the left-out speaker)."""
    return f"seed-{seed}" if fold is None else f"seed-{seed}-fold-{fold.replace(PARTIAL_SUFFIX, '_partial')}"


def seen_in_pretraining(record: Mapping[str, Any], corpus: str) -> bool:
    """Whether the weights that a run started from had heard a corpus; `CREMA-D` and `cremad` are one name."""
    return _plain(corpus) in {_plain(name) for name in record.get("seen_corpora") or ()}


def seen_by_any(said: Iterable[Sequence[str] | None]) -> list[str] | None:
    """`seen_corpora` of several encoders together; None where none is named and not every one has said so."""
    listed = list(said)
    named = {name for names in listed for name in names or ()}
    return sorted(named) if named or None not in listed else None


def seen_words(record: Mapping[str, Any]) -> str:
    """What the weights that a run started from had heard, in words."""
    said = record.get("seen_corpora")
    return "not stated" if said is None else ", ".join(said) or "nothing"


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def prediction_file(test_corpus: str, condition: str | None = None) -> str:
    """`predictions/<test corpus>[@<condition>].csv`."""
    return f"{PREDICTIONS}/{test_corpus}{'@' + condition if condition else ''}.csv"


@dataclass(frozen=True)
class RunFolder:
    """One finished run on disk."""

    path: Path
    record: dict[str, Any]
    """The content of run.json."""

    @property
    def spec(self) -> dict[str, Any]:
        """The content of spec.json."""
        return _read_record(self.path / SPEC)

    def split(self) -> pd.DataFrame:
        """The table of split.csv (columns `SPLIT_COLUMNS`), every value a string."""
        return read_table(self.path / SPLIT, SPLIT_COLUMNS)

    def history(self) -> pd.DataFrame:
        """The table of history.csv (columns `HISTORY_COLUMNS`), one row per evaluation."""
        file = self.path / HISTORY
        table = read_table(file, HISTORY_COLUMNS)
        if table.empty:
            raise BadInput(f"{file} holds no rows; {DAMAGED}")
        for column in HISTORY_COLUMNS:
            # A loss may have become NaN; a text is no loss.
            table[column] = _floats(table, column, file, gaps=True)
        return table

    def validation(self) -> pd.DataFrame | None:
        """Predictions of the validation clips; None of a run that was trained before they were kept."""
        file = self.path / VALIDATION
        return read_predictions(file) if file.is_file() else None

    def predictions(self) -> dict[tuple[str, str], pd.DataFrame]:
        """Prediction tables by (test corpus, condition); the condition is "" where there is none."""
        tables = {}
        for file in sorted((self.path / PREDICTIONS).glob("*.csv")):
            corpus, _, condition = file.stem.partition("@")
            tables[corpus, condition] = read_predictions(file)
        return tables


def read_predictions(file: Path) -> pd.DataFrame:
    """A prediction table: text columns as text, `correct` as 0/1, `p_<label>` as float."""
    table = read_table(file, PREDICTION_COLUMNS)
    wrong = ~table["correct"].isin(["0", "1"])
    if wrong.any():
        row = table[wrong].iloc[0]
        raise BadInput(f"{file}: correct of {row['path']} is {row['correct']!r}, neither 0 nor 1; {DAMAGED}")
    table["correct"] = table["correct"].astype(int)
    for column in table.columns:
        if column.startswith((PROBABILITY_PREFIX, PREDICTED_PREFIX)):
            table[column] = _floats(table, column, file)
        elif column.startswith(RATING_PREFIX):
            table[column] = _floats(table, column, file, gaps=True)
    predicted = [str(name) for name in table if str(name).startswith(PREDICTED_PREFIX)]
    lone = [name for name in predicted if _truth_of(name) not in table]
    if lone:
        raise BadInput(f"{file} has the column {lone[0]}, but not {_truth_of(lone[0])}; {DAMAGED}")
    return table


def _truth_of(predicted: str) -> str:
    return RATING_PREFIX + predicted.removeprefix(PREDICTED_PREFIX)


def _floats(table: pd.DataFrame, column: str, file: Path, *, gaps: bool = False) -> pd.Series[float]:
    """A text column as float; with `gaps` an empty cell and `nan` are NaN."""
    text = table[column]
    allowed = text.str.lower().isin(["", "nan"]) if gaps else pd.Series(False, index=table.index)
    wrong = np.asarray(~(np.isfinite(pd.to_numeric(text, errors="coerce").astype(float)) | allowed))
    if wrong.any():
        line = int(wrong.argmax()) + 2
        raise BadInput(f"{file}, line {line}: {column} = {text[wrong].iloc[0]!r} is no finite number; {DAMAGED}")
    return text.where(~allowed, "nan").astype(float)


def find_runs(experiment_folder: Path) -> list[RunFolder]:
    """Every finished run below `<runs>/<experiment>`, in order of path; `.partial` folders are left out.

    Raises:
        BadInput: if a run.json is damaged or lacks one of `REQUIRED`
    """
    return [RunFolder(path, _read_record(path / RUN, REQUIRED)) for path in _run_paths(experiment_folder)]


def planned_runs(experiment_folder: Path) -> list[str]:
    """The runs of plan.json, relative to the experiment folder; none where there is no plan."""
    plan = experiment_folder / PLAN
    if not plan.is_file():
        return []
    content = read_json(plan)
    planned = content.get("runs") if isinstance(content, dict) else None
    if not isinstance(planned, list) or not all(isinstance(path, str) for path in planned):
        raise BadInput(f"{plan}: expected {{'runs': [paths of run folders, relative to {experiment_folder}]}}")
    return planned


def planned_contrasts(experiment_folder: Path) -> list[tuple[str, str]]:
    """The pairs of models that the experiment declares, from plan.json; none where it declares none."""
    plan = experiment_folder / PLAN
    content = read_json(plan) if plan.is_file() else {}
    pairs = content.get("contrasts", []) if isinstance(content, dict) else []
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(name, str) for name in pair) for pair in pairs
    ):
        raise BadInput(f"{plan}: contrasts: expected pairs of models, such as [['a', 'b']]")
    return [(pair[0], pair[1]) for pair in pairs]


def find_experiments(runs: Path) -> list[Path]:
    """The experiment folders below the runs folder that hold at least one finished run, sorted."""
    if not runs.is_dir():
        return []
    return [folder for folder in sorted(runs.iterdir()) if folder.is_dir() and next(_run_paths(folder), None)]


def _run_paths(experiment_folder: Path) -> Iterator[Path]:
    for path in sorted(experiment_folder.glob(f"*/*/seed-*/{RUN}")):
        if _RUN_NAME.fullmatch(path.parent.name) and not path.parent.name.endswith(PARTIAL_SUFFIX):
            yield path.parent


def _read_record(file: Path, required: Sequence[str] = ()) -> dict[str, Any]:
    """A JSON object of a run folder."""
    if not file.is_file():
        raise BadInput(f"{file}: no such file; {DAMAGED}")
    try:
        content = read_json(file)
    except BadInput as error:
        raise BadInput(f"{error}; {DAMAGED}") from None
    if not isinstance(content, dict):
        raise BadInput(f"{file} holds no JSON object; {DAMAGED}")
    missing = [key for key in required if key not in content]
    if missing:
        raise BadInput(f"{file} lacks {', '.join(missing)}; {DAMAGED}")
    return content


def is_derived(run: RunFolder) -> bool:
    """Whether the run is an ensemble or has another prior: made of other runs' predictions, without training."""
    return bool(run.record.get("members"))


def trained(runs: Sequence[RunFolder]) -> list[RunFolder]:
    """The runs that something was trained for; all of them where that is none."""
    return [run for run in runs if not is_derived(run)] or list(runs)


def counted_runs(runs: Sequence[RunFolder]) -> str:
    """`3 runs`, or `3 runs and 6 derived from them`."""
    own = sum(not is_derived(run) for run in runs)
    more = f" and {len(runs) - own} derived from them" if own < len(runs) else ""
    return f"{own} run{'' if own == 1 else 's'}{more}"


def spent(seconds: float) -> str:
    """A span of time in words: `42 s`, `12.5 minutes`, `3.20 hours`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} minutes" if seconds < 3600 else f"{seconds / 3600:.2f} hours"


def remote_code(record: Mapping[str, Any]) -> str:
    """What run.json says of code that came with an encoder and ran, as words to follow its name; mostly nothing."""
    files = record.get("remote_code", {}).get("files", {})
    listing = ", ".join(f"{name} {checksum[:12]}" for name, checksum in sorted(files.items()))
    return f", with its own code ({listing})" if listing else ""


def read_json(file: Path, *, unique_keys: bool = False) -> Any:
    """Read a JSON file in UTF-8, with or without a byte-order mark; a syntax error names file, line and column.

    With `unique_keys` an object with one key twice is refused, of which JSON readers else keep the last.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if twice := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
            raise BadInput(f"{file}: the key '{twice[0]}' stands twice in one object")
        return dict(pairs)

    try:
        return json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=unique if unique_keys else None)
    except UnicodeDecodeError as error:
        raise BadInput(f"{file} is not in UTF-8: {error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise BadInput(f"{file} is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None


def write_json(file: Path, content: Any) -> None:
    """Write JSON with sorted keys, indented, whole or not at all."""
    write_text(file, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_table(file: Path, columns: list[str]) -> pd.DataFrame:
    """Read a CSV of a run folder or of its experiment with every value as text; errors say how to mend it."""
    remedy = "delete it and run `ser train` again, which writes it anew" if file.name == CLIPS else DAMAGED
    try:
        table = parse_table(file)
    except BadInput as error:
        raise BadInput(f"{error}; {remedy}") from None
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise BadInput(f"{file} lacks the column(s) {', '.join(missing)}; it has {', '.join(table.columns)}; {remedy}")
    return table


def parse_table(file: Path, separators: str = ",") -> pd.DataFrame:
    """A CSV with every value as text; nothing is taken for missing, so that `None` or `03` stay what they are.

    Args:
        file: in UTF-8
        separators: those that it may have; the one that its header holds most often counts

    Raises:
        BadInput: if it is no table: not there, empty, not UTF-8, or a row has fewer or more fields than the header
    """
    if not file.is_file():
        raise BadInput(f"{file}: no such file")
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            first = stream.readline()
            stream.seek(0)
            reader = csv.reader(stream, delimiter=max(separators, key=first.count), strict=True)
            rows = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{file} is not a CSV table in UTF-8: {error}") from None
    if not rows:
        raise BadInput(f"{file} is empty")
    (_, header), *body = rows
    if twice := [column for column in header if header.count(column) > 1]:
        raise BadInput(f"{file} has the column '{twice[0]}' more than once")
    for line, row in body:
        if len(row) != len(header):
            raise BadInput(f"{file}, line {line}: {len(row)} fields, but the header has {len(header)}")
    return pd.DataFrame([row for _, row in body], columns=header, dtype=str)


def write_table(file: Path, table: pd.DataFrame) -> None:
    """Write a CSV (comma, LF, floats in full precision), whole or not at all."""
    write_text(file, table.to_csv(index=False, lineterminator="\n"))


def write_text(file: Path, text: str) -> None:
    """Write beside the target and rename, so that a full disk or a kill leaves the old file or none."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
