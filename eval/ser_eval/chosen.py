"""What a report says of chosen settings: by which trials or sides, on whom, and what was chosen for each run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from ser_eval.run_folder import RunFolder, is_derived, spent

PICTURE = "study.png"
"""Beside the trials of a study, which `ser train` and `ser tune` leave in the folder that run.json names."""
SCOPES = {
    "nested": "one study inside each split; no test speaker of a split takes part in its study",
    "locked": "one study for all seeds, whose test speakers were set aside before it",
}
RANDOM_TRIALS = 10
"""Of TPE, where the search does not say (`SearchSpec.random_trials`)."""
SAMPLERS = {"tpe": "by TPE, each looking at those before it", "random": "at random", "grid": "from a grid"}
GRID_SIDES = {
    "inner_uar": "by the UAR of left-out training speakers",
    "val_uar": "by the UAR of the validation side",
}


@dataclass(frozen=True)
class Choice:
    """The settings of one model on one training set that trials or sides have chosen."""

    model: str
    """With its augmentation."""
    train: str
    words: str
    """How they were chosen, in one sentence."""
    rows: tuple[tuple[str, str, str, str], ...]
    """(run, what was chosen, its score, how many were tried); runs with the same choice of few are one row."""
    picture: Path | None
    """Of the first study, where it is there."""
    num_studies: int


def choices(folder: Path, runs: Sequence[RunFolder]) -> list[Choice]:
    """What was chosen by a search, a grid, or a search over layers; in order of model and training set.

    Args:
        folder: of the experiment
        runs: its finished runs
    """
    found = []
    for (model, train), group in groupby(sorted(runs, key=_order), key=lambda run: _order(run)[:2]):
        members = list(group)
        searched = [run for run in members if run.record.get("search")]
        if searched:
            found.append(_of_search(folder, model, train, searched))
        elif any(_by_sides(run) for run in members):
            found.append(_of_sides(model, train, [run for run in members if _by_sides(run)]))
    return found


def card_lines(folder: Path, runs: Sequence[RunFolder]) -> list[str]:
    """The same for the protocol card, a line per model, and settings that were tuned in an earlier experiment."""
    lines = [f"{one.model}: {one.words}" for one in choices(folder, runs)]
    tuned: dict[str, set[str]] = {}
    for run in runs:
        if run.record.get("tuned_on") and not run.record.get("search") and not is_derived(run):
            corpora = ", ".join(
                f"{len(entry['actors'])} speakers of {entry['corpus']}" for entry in run.record["tuned_on"]
            )
            tuned.setdefault(_name(run), set()).add(corpora)
    for model, found in sorted(tuned.items()):
        lines.append(
            f"{model}: by an earlier search, whose trials {' or '.join(sorted(found))} trained or scored; nobody "
            "who is tested is among them"
        )
    return lines


def _of_search(folder: Path, model: str, train: str, runs: Sequence[RunFolder]) -> Choice:
    studies = {run.record["search"]["study"]: run.record["search"] for run in runs}
    some = next(iter(studies.values()))
    trials = {key: sum(study[key] for study in studies.values()) for key in ("num_trials", "pruned", "failed")}
    share = some["amount_of_training_data"]
    seconds = sum(study["seconds"] for study in studies.values())
    words = (
        f"{_count(trials['num_trials'], 'trial')} in {_count(len(studies), 'study', 'studies')} "
        f"({trials['pruned']} pruned, {trials['failed']} failed) over {', '.join(some['parameters'])}, drawn "
        f"{_drawn(some, runs[0])}, compared by {some['metric']}"
        + (f", trained on {share:.0%} of the training speakers" if share < 1 else "")
        + f"; {some['scope']}: {SCOPES.get(some['scope'], '')}; {spent(seconds)}"
    )
    rows = []
    for run in runs:
        study = run.record["search"]
        tried = f"trial {study['best_trial']} of {study['num_trials']}"
        rows.append((_which(run), _values(study["values"]), f"{study['best_value']:.3f}", tried))
    pictures = [file for name in studies if (file := folder / name / PICTURE).is_file()]
    return Choice(model, train, words, tuple(rows), pictures[0] if pictures else None, len(studies))


def _drawn(study: dict[str, Any], run: RunFolder) -> str:
    """How the trials of a study were drawn; TPE draws its first ones at random."""
    first = (run.spec.get("search") or {}).get("startup_trials") or RANDOM_TRIALS
    if study["sampler"] == "tpe" and study["num_trials"] <= first:
        return SAMPLERS["random"]
    return SAMPLERS.get(study["sampler"], str(study["sampler"]))


def _by_sides(run: RunFolder) -> bool:
    """Whether validation, or training speakers left out, have chosen a setting or a layer."""
    return (run.record.get("settings_tried") or 1) > 1 or _searched_layer(run)


def _searched_layer(run: RunFolder) -> bool:
    if run.record.get("layer") is None:  # neither a head over a frozen encoder nor a classical model
        return False
    return (run.spec.get("model", {}).get("layers") or {}).get("use") == "search"


def _of_sides(model: str, train: str, runs: Sequence[RunFolder]) -> Choice:
    tried = max(int(run.record.get("settings_tried") or 0) for run in runs)
    by = sorted({str(run.record["selected_by"]) for run in runs})
    how = GRID_SIDES.get(by[0], f"by {by[0]} on the validation side") if len(by) == 1 else f"by {', '.join(by)}"
    what = f"one of {tried} settings" if tried else "the hidden state"
    counts: dict[str, list[RunFolder]] = {}
    for run in runs:
        counts.setdefault(_setting(run), []).append(run)
    most = sorted(counts.items(), key=lambda item: (-len(item[1]), item[0]))
    rows = tuple(
        (_count(len(members), "run"), setting, "", str(tried) if tried else "every layer") for setting, members in most
    )
    return Choice(model, train, f"{what} per run, {how}; test clips take no part", rows, None, 0)


def _setting(run: RunFolder) -> str:
    layer = run.record.get("layer")
    setting = run.record.get("setting") or {}
    parts = [] if layer is None else [f"layer {layer}"]
    values = _values({key: value for key, value in setting.items() if key != "kind" and value is not None})
    return ", ".join([*parts, *([values] if values else [])])


def _values(values: dict[str, Any]) -> str:
    return ", ".join(f"{path} {_short(value)}" for path, value in sorted(values.items()))


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) and math.isfinite(value) else str(value)


def _order(run: RunFolder) -> tuple[str, str, int, str]:
    return (_name(run), " + ".join(run.record["train_corpora"]), run.record["seed"], str(run.record["fold"] or ""))


def _name(run: RunFolder) -> str:
    augmentation = run.record["augmentation"]
    return str(run.record["model"]) + (f"+{augmentation}" if augmentation else "")


def _which(run: RunFolder) -> str:
    fold = run.record["fold"]
    return f"seed {run.record['seed']}" + (f", fold {fold}" if fold is not None else "")


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
