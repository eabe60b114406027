"""Runs that need no training: ensembles, and corrections of the prior, as run folders of their own.

A derived run is a pure function of the prediction files of its members, so that it is made anew whenever they have new
ones (a further condition, a further corpus) and costs next to nothing.

The correction of the prior (Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori
probabilities", Neural Computation 14, 2002, equations 2.4 and 2.9) divides probabilities by the frequencies of the
classes that the model was trained with and multiplies them by others: equal ones, which is fair to the UAR, or ones
that expectation maximisation estimates from the test clips without their labels (transductive). The true frequencies of
a test side are never used.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ser_eval import run_folder
from ser_eval.run_folder import PROBABILITY_PREFIX, RunFolder, is_derived
from ser_scripts.errors import BadInput, SplitRefused
from ser_scripts.leaks import counted
from ser_scripts.specs.base import digest
from ser_scripts.specs.ensembles import EnsembleSpec, PriorCorrection, corrected_name

DERIVED = "derived"
"""The key of spec.json that tells a derived run, and what it is made of."""
EM_TOLERANCE = 1e-8
EM_ITERATIONS = 10_000

Array = NDArray[np.float64]
Key = tuple[str, str]
"""(test corpus, condition)"""


@dataclass(frozen=True)
class Member:
    """A finished run, and how much it counts."""

    run: RunFolder
    weight: float


@dataclass(frozen=True)
class Derivation:
    """One run to be derived."""

    model: str
    members: tuple[Member, ...]
    correction: PriorCorrection | None
    over: str


def average(tables: Sequence[pd.DataFrame], weights: Sequence[float]) -> pd.DataFrame:
    """The prediction table of an ensemble: weighted mean of the probabilities, the first of equal ones answered.

    Args:
        tables: prediction tables of the same clips, in any order
        weights: of each table; divided by their sum

    Raises:
        BadInput: the tables are of other clips or classes
    """
    first = tables[0].sort_values("path", kind="stable").reset_index(drop=True)
    columns = _probability_columns(first)
    total = np.zeros((len(first), len(columns)))
    for table, weight in zip(tables, weights, strict=True):
        rows = table.sort_values("path", kind="stable").reset_index(drop=True)
        if _probability_columns(rows) != columns:
            raise BadInput("the members of an ensemble must know the same classes in the same order")
        same = ("corpus", "path", "truth")
        if len(rows) != len(first) or any(list(rows[name]) != list(first[name]) for name in same):
            raise BadInput("the members of an ensemble must be tested on the same clips with the same labels")
        total += weight * rows[columns].to_numpy(dtype=float)
    return _with_probabilities(first, total / math.fsum(weights))


def correct_prior(probabilities: Array, source: Array, target: Array) -> Array:
    """Probabilities as they were, had the classes the frequencies `target` instead of `source`.

    Args:
        probabilities: (N, K)
        source: frequencies that the model was trained with, (K,); a class with 0 is masked: nobody knows it
        target: (K,)

    Raises:
        BadInput: a clip has no probability on any class that was trained
    """
    ratio = np.zeros_like(source)
    known = source > 0
    ratio[known] = target[known] / source[known]
    raised = probabilities * ratio
    mass = raised.sum(axis=1, keepdims=True)
    if (mass <= 0).any():
        raise BadInput("a clip has no probability on any class with training clips, so that no prior can be corrected")
    return np.asarray(raised / mass)


def uniform_prior(source: Array) -> Array:
    """Equal frequencies of the classes that were trained."""
    return np.asarray((source > 0) / np.count_nonzero(source > 0))


def estimate_prior(
    probabilities: Array, source: Array, *, tolerance: float = EM_TOLERANCE, iterations: int = EM_ITERATIONS
) -> Array:
    """Frequencies of the classes among clips without labels, by expectation maximisation.

    From the training frequencies on: correct the probabilities for the present estimate, and take their mean as the
    next, until no frequency moves by more than `tolerance` or so many iterations are done. Each step raises the
    likelihood of the clips; the answer rests on probabilities that are right but for the prior.

    Args:
        probabilities: of the model as it was trained, (N, K)
        source: frequencies that it was trained with, (K,)
        tolerance: of a frequency
        iterations: at most
    """
    prior = source / source.sum()
    for _ in range(iterations):
        following = correct_prior(probabilities, source, prior).mean(axis=0)
        if np.abs(following - prior).max() <= tolerance:
            return np.asarray(following)
        prior = following
    return np.asarray(prior)


def training_prior(run: RunFolder) -> dict[str, float]:
    """Frequencies of the classes that a model has learned: those of its training clips, or equal ones.

    A loss with class weights (as the balanced weights of a classical model) already trains for equal frequencies, so
    dividing by those of the clips would correct twice.
    """
    labels: list[str] = run.record["labels"]
    model = run.spec["model"]
    both = model.get("training", {}).get("fit_on") == "train_and_validation"
    split = run.split()
    rows = split[split["split"].isin(["train", "validation"] if both else ["train"])]
    counts = np.array([(rows["class_id"] == label).sum() for label in labels], dtype=float)
    weighted = model["class_weights"] if model["kind"] == "classical" else model["loss"]["class_weights"]
    prior = uniform_prior(counts) if weighted else counts / counts.sum()
    return {label: float(share) for label, share in zip(labels, prior, strict=True)}


def plan_derived(
    runs: Sequence[RunFolder], ensembles: Sequence[EnsembleSpec], corrections: Sequence[PriorCorrection]
) -> list[Derivation]:
    """What is derived from the finished runs of an experiment; groups whose members are not all finished wait."""
    found: list[Derivation] = []
    models = sorted({_model(run) for run in runs})
    by_model = {name: [run for run in runs if _model(run) == name] for name in models}
    for how in corrections:
        found += [
            Derivation(corrected_name(name, how), (Member(run, 1.0),), how, "models")
            for name in models
            for run in by_model[name]
        ]
    for spec in ensembles:
        weights = dict(zip(spec.models, spec.weights or [1.0] * len(spec.models), strict=True))
        for group in _groups([run for name in spec.models for run in by_model.get(name, [])], spec.over):
            if {_model(run) for run in group} < set(spec.models):
                continue
            members = tuple(Member(run, weights[_model(run)]) for run in group)
            found.append(Derivation(spec.name, members, None, spec.over))
            found += [Derivation(corrected_name(spec.name, how), members, how, spec.over) for how in corrections]
    return found


def write_derived(
    folder: Path,
    ensembles: Sequence[EnsembleSpec],
    corrections: Sequence[PriorCorrection],
    say: Callable[[str], None],
) -> int:
    """Write every run that can be derived from the finished runs of an experiment; returns how many.

    Args:
        folder: `<runs>/<experiment>`
        ensembles: of the experiment
        corrections: of the experiment
        say: takes a line

    Raises:
        SplitRefused: the members of an ensemble have trained on each other's test speakers
    """
    if not ensembles and not corrections:
        return 0
    trained = [run for run in run_folder.find_runs(folder) if not is_derived(run) and not run.record["augmentation"]]
    todo = plan_derived(trained, ensembles, corrections)
    for one in todo:
        _write(folder, one)
    say(f"{counted(len(todo), 'run')} derived ({', '.join(sorted({one.model for one in todo}))})")
    return len(todo)


def refresh_derived(folder: Path, say: Callable[[str], None]) -> int:
    """Make the derived runs of an experiment anew, from what their own records say; returns how many."""
    runs = run_folder.find_runs(folder)
    by_path = {run.path.relative_to(folder).as_posix(): run for run in runs}
    derived = [run for run in runs if is_derived(run)]
    for run in derived:
        content = run.spec[DERIVED]
        names = run.record["members"]
        if gone := [name for name in names if name not in by_path]:
            raise BadInput(f"{run.path} was derived from {gone[0]}, which is not there any more; delete both")
        members = tuple(Member(by_path[name], weight) for name, weight in names.items())
        _write(folder, Derivation(run.record["model"], members, content["correction"], content["over"]))
    if derived:
        say(f"{len(derived)} derived runs made anew")
    return len(derived)


def _model(run: RunFolder) -> str:
    return str(run.record["model"])


def _groups(runs: Sequence[RunFolder], over: str) -> list[list[RunFolder]]:
    """The runs that are averaged, by training set and what `over` keeps apart."""
    groups: dict[tuple[Any, ...], list[RunFolder]] = {}
    for run in runs:
        record = run.record
        kept: tuple[Any, ...] = ("+".join(record["train_corpora"]),)
        if over == "models":
            kept += (record["seed"], record["split_seed"], record["train_seed"], record["fold"] or "")
        elif over == "train_seeds":
            kept += (record["split_seed"], record["fold"] or "")
        groups.setdefault(kept, []).append(run)
    return [groups[key] for key in sorted(groups)]


def _write(folder: Path, derivation: Derivation) -> None:
    members = derivation.members
    runs = [member.run for member in members]
    first = min(runs, key=lambda run: (run.record["seed"], str(run.record["fold"])))
    shared = len({run.record["split_sha256"] for run in runs}) == 1
    fold = first.record["fold"] if shared else None
    name = run_folder.run_name(first.record["seed"], fold)
    final = folder / derivation.model / "+".join(first.record["train_corpora"]) / name
    partial = final.with_name(final.name + run_folder.PARTIAL_SUFFIX)
    tables = [run.predictions() for run in runs]
    keys = sorted(set.intersection(*(set(table) for table in tables)))
    if not shared:
        keys = _unheard(derivation, keys)
    priors: dict[str, Any] = {}
    sources = [training_prior(run) for run in runs] if derivation.correction else []
    shutil.rmtree(partial, ignore_errors=True)
    (partial / run_folder.PREDICTIONS).mkdir(parents=True)
    for corpus, condition in keys:
        parts = [table[corpus, condition] for table in tables]
        if derivation.correction is not None:
            parts, priors[_test(corpus, condition)] = _corrected(parts, sources, derivation.correction)
        try:
            table = average(parts, [member.weight for member in members])
        except BadInput as error:
            raise BadInput(f"'{derivation.model}' tested on {_test(corpus, condition)}: {error}") from None
        run_folder.write_table(partial / run_folder.prediction_file(corpus, condition or None), table)
    split = first.split() if shared else _joined_splits(runs, [corpus for corpus, _ in keys])
    checksum = first.record["split_sha256"] if shared else _joined_checksum(runs)
    run_folder.write_table(partial / run_folder.SPLIT, split)
    run_folder.write_table(partial / run_folder.HISTORY, _history())
    shutil.copyfile(first.path / run_folder.ENVIRONMENT, partial / run_folder.ENVIRONMENT)
    spec = _spec(derivation, first, fold, checksum)
    run_folder.write_json(partial / run_folder.SPEC, spec)
    record = _record(derivation, first, folder, spec, split)
    record |= {"priors": priors, "fold": fold, "split_sha256": checksum}
    run_folder.write_json(partial / run_folder.RUN, record)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)


def _corrected(
    tables: Sequence[pd.DataFrame], sources: Sequence[Mapping[str, float]], correction: PriorCorrection
) -> tuple[list[pd.DataFrame], list[dict[str, Any]]]:
    """Each member's table with another prior, and what these priors were."""
    found, priors = [], []
    for table, source in zip(tables, sources, strict=True):
        columns = _probability_columns(table)
        labels = [column.removeprefix(PROBABILITY_PREFIX) for column in columns]
        before = np.array([source[label] for label in labels])
        values = table[columns].to_numpy(dtype=float)
        after = uniform_prior(before) if correction == "uniform" else estimate_prior(values, before)
        found.append(_with_probabilities(table, correct_prior(values, before, after)))
        priors.append({"trained": dict(source), "used": dict(zip(labels, after.tolist(), strict=True))})
    return found, priors


def _unheard(derivation: Derivation, keys: Sequence[Key]) -> list[Key]:
    """The test corpora of which no member has heard anything; members of other splits may be tested on these only."""
    runs = [member.run for member in derivation.members]
    heard: set[str] = set()
    for run in runs:
        split = run.split()
        heard |= set(split.loc[split["split"].isin(["train", "validation"]), "corpus"])
    allowed = [key for key in keys if key[0] not in heard]
    if not allowed:
        raise SplitRefused(
            f"ensemble '{derivation.model}': its members ({', '.join(sorted({_model(run) for run in runs}))}) were "
            f"trained on {len({run.record['split_sha256'] for run in runs})} different splits, so that some have "
            'trained on the others\' test speakers; average over one split ("over": "models" or "train_seeds"), or '
            "test on a corpus that none has heard"
        )
    return allowed


def _joined_splits(runs: Sequence[RunFolder], tested: Sequence[str]) -> pd.DataFrame:
    """One split of members with several: who trained any member trains, who validates any validates."""
    rank = {"train": 0, "validation": 1, "unused": 2, "test": 2}
    table = pd.concat([run.split() for run in runs])
    table = table.assign(rank=table["split"].map(rank)).sort_values(["corpus", "path", "rank"], kind="stable")
    table = table.drop_duplicates(["corpus", "path"]).drop(columns="rank")
    own = ~table["corpus"].isin(tested)
    return table.assign(split=table["split"].where(~(own & (table["split"] == "test")), "unused"))


def _joined_checksum(runs: Sequence[RunFolder]) -> str:
    lines = sorted({f"{run.record['split_sha256']}\n" for run in runs})
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _spec(derivation: Derivation, first: RunFolder, fold: str | None, checksum: str) -> dict[str, Any]:
    weights: dict[str, float] = {}
    for member in derivation.members:
        weights[_model(member.run)] = member.weight
    content = first.spec
    kept = ("experiment", "manifest_sha256", "seed", "split_seed", "train_seed")
    return {key: content[key] for key in kept} | {
        "fold": fold,
        "split_sha256": checksum,
        "inputs": {},
        "model": {"name": derivation.model, "kind": DERIVED},
        DERIVED: {"weights": weights, "over": derivation.over, "correction": derivation.correction},
    }


def _record(
    derivation: Derivation, first: RunFolder, folder: Path, spec: dict[str, Any], split: pd.DataFrame
) -> dict[str, Any]:
    """run.json: what the members share, and what the derived run is."""
    runs = [member.run for member in derivation.members]
    names = sorted({_model(run) for run in runs})
    notes = list(first.record["split_notes"])
    what = f"mean of the probabilities of {', '.join(names)}" if len(runs) > 1 else f"the answers of {names[0]}"
    if derivation.correction == "uniform":
        notes.append(f"{derivation.model}: {what}, the training prior divided out")
        if all(len({share for share in training_prior(run).values() if share}) == 1 for run in runs):
            notes.append(f"{derivation.model}: class weights have evened out the training prior: nothing changes")
    elif derivation.correction == "estimated":
        notes.append(
            f"{derivation.model}: {what}, with a prior estimated from the test clips without their labels: TRANSDUCTIVE"
        )
    else:
        notes.append(f"{derivation.model}: {what}")
    relative = [run.path.relative_to(folder).as_posix() for run in runs]
    return {
        **{key: value for key, value in first.record.items() if key not in _OF_TRAINING},
        "model": derivation.model,
        "factors": {},
        "members": {name: member.weight for name, member in zip(relative, derivation.members, strict=True)},
        "member_digests": {name: run.record["spec_digest"] for name, run in zip(relative, runs, strict=True)},
        "transductive": derivation.correction == "estimated",
        "not_comparable": any(run.record["not_comparable"] for run in runs),
        "n_clips": {side: int((split["split"] == side).sum()) for side in run_folder.SPLIT_SIDES},
        "split_notes": notes,
        "spec_digest": digest(spec),
        "seconds": 0.0,
        "selected_by": "its members",
        "best_epoch": 0.0,
        "best_step": 0,
        "best_val_uar": None,
        "epochs_run": 0.0,
        "threads": first.record["threads"],
        "encoder": {"name": f"of {', '.join(names)}", "revision": None, "sha256": None},
        "seen_corpora": run_folder.seen_by_any(run.record.get("seen_corpora") for run in runs),
        "inputs": {},
        "ended": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


_OF_TRAINING = frozenset(
    ("layer", "setting", "settings_tried", "temperature", "converged", "not_converged", "fitted_on", "search",
     "parameters", "long_clips", "out_of_memory", "targets", "augmentation_inputs")
)  # fmt: skip
"""Keys of run.json that say how one member was trained."""


def _history() -> pd.DataFrame:
    """Nothing was trained: one row without numbers, since a history has a row."""
    row = dict.fromkeys(run_folder.HISTORY_COLUMNS, math.nan)
    return pd.DataFrame([{**row, "step": 0, "epoch": 0.0, "seconds": 0.0}], columns=run_folder.HISTORY_COLUMNS)


def _probability_columns(table: pd.DataFrame) -> list[str]:
    return [column for column in table.columns if column.startswith(PROBABILITY_PREFIX)]


def _with_probabilities(table: pd.DataFrame, probabilities: Array) -> pd.DataFrame:
    """A prediction table with other probabilities, and the answers that follow from them."""
    columns = _probability_columns(table)
    labels = np.array([column.removeprefix(PROBABILITY_PREFIX) for column in columns], dtype=object)
    kept = table[[*run_folder.PREDICTION_COLUMNS]].copy()
    kept["prediction"] = labels[probabilities.argmax(axis=1)]
    kept["correct"] = (kept["truth"] == kept["prediction"]).astype(int)
    kept[columns] = probabilities
    return kept


def _test(corpus: str, condition: str) -> str:
    return f"{corpus}@{condition}" if condition else corpus
