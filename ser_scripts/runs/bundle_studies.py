"""Searches in a bundle: which files of a study are packed, and whether its runs follow from its trials.

Without corpora and without training it can be shown that table and winner follow from the study's database, that runs
have the winner's settings and the study's otherwise, and that no trial has heard whom a run tests.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ser_eval import run_folder
from ser_scripts.errors import BadInput, Finding
from ser_scripts.leaks import named
from ser_scripts.runs.comparing import Compared, compare_json, compare_tables, json_faults, some
from ser_scripts.runs.search_study import SEARCH
from ser_scripts.specs.base import digest, parse
from ser_scripts.specs.model import ModelSpec
from ser_scripts.specs.search import SearchSpec, with_values

if TYPE_CHECKING:
    import optuna

_OF_THE_RUN = frozenset({"save_model", "track", "tuned_on", "description", "factors"})
"""What a run's model may have otherwise than its trials: what is kept and told, nothing that is computed."""


def study_files(folder: Path, runs: Sequence[run_folder.RunFolder]) -> list[Path]:
    """What is packed of an experiment's finished studies.

    Args:
        folder: `<runs>/<experiment>`
        runs: the runs that are packed

    Raises:
        Finding: a run has the settings of a study that is not there whole
    """
    from ser_scripts.runs.search import DATABASE, PICTURE, RESULT, STUDY, TRIALS

    needed = (STUDY, DATABASE, TRIALS, RESULT)
    for run in runs:
        if search := run.record.get("search"):
            for name in needed:
                if not (folder / search["study"] / name).is_file():
                    raise Finding(
                        f"{run.path} was trained with settings of {search['study']}, whose {name} is not there; "
                        "`ser tune` makes the study again"
                    )
    studies = _studies(folder)
    return [study / name for study in studies for name in (*needed, PICTURE) if (study / name).is_file()]


def _studies(folder: Path) -> list[Path]:
    """Folders of finished studies."""
    from ser_scripts.runs.search import RESULT

    return sorted(file.parent for file in (folder / SEARCH).rglob(RESULT))


def check_studies(
    packed: Path, runs: Sequence[run_folder.RunFolder], scratch: Path, tolerance: float
) -> list[Compared]:
    """Derive table, winner and the runs' settings again from the databases of an unpacked bundle's studies.

    Args:
        packed: the experiment in the bundle; nothing in it is written to
        runs: its runs
        scratch: an existing folder for copies
        tolerance: absolute and relative difference of a number that counts as none
    """
    from ser_scripts.runs.search import RESULT

    compared = []
    of_study: dict[str, list[run_folder.RunFolder]] = {
        study.relative_to(packed).as_posix(): [] for study in _studies(packed)
    }
    for run in runs:
        if search := run.record.get("search"):
            of_study.setdefault(str(search["study"]), []).append(run)
    for name, mine in sorted(of_study.items()):
        if not (packed / name / RESULT).is_file():
            compared.append(Compared(name, "different", ("not there, but runs have its settings",)))
            continue
        try:
            compared += _check(packed / name, name, mine, scratch / name, tolerance)
        except (BadInput, Finding) as fault:
            compared.append(Compared(name, "different", (str(fault).splitlines()[0],)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            compared.append(Compared(name, "different", (f"damaged: {type(error).__name__}: {error}",)))
    return compared


def _check(
    study: Path, name: str, runs: Sequence[run_folder.RunFolder], scratch: Path, tolerance: float
) -> list[Compared]:
    from ser_scripts.runs.search import DATABASE, RESULT, STUDY, TRIALS, read_trials, record_of, trials_table

    scratch.mkdir(parents=True, exist_ok=True)
    for file in (STUDY, DATABASE):  # a copy, since opening a database may write to it
        if not (study / file).is_file():
            return [Compared(f"{name}/{file}", "different", ("not there",))]
        shutil.copyfile(study / file, scratch / file)
    identity = run_folder.read_json(study / STUDY)["identity"]
    spec = SearchSpec.model_validate(identity["search"])
    trials = read_trials(scratch)
    result = run_folder.read_json(study / RESULT)
    finished = trials[: int(result["num_trials"])]
    run_folder.write_table(scratch / TRIALS, trials_table(spec, finished))
    run_folder.write_json(scratch / RESULT, record_of(name, spec, finished) | {"tuned_on": result["tuned_on"]})
    compared = [
        compare_tables(f"{name}/{TRIALS}", study / TRIALS, scratch / TRIALS, tolerance),
        compare_json(f"{name}/{RESULT}", study / RESULT, scratch / RESULT, tolerance),
    ]
    if runs:
        faults = [
            fault
            for run in runs
            for fault in _faults_of_run(run, identity, spec, name, trials, result["tuned_on"], tolerance)
        ]
        what = f"{name}: settings and listeners of {len(runs)} run{'s' if len(runs) > 1 else ''}"
        compared.append(Compared(what, "different" if faults else "equal", some(faults)))
    return compared


def _faults_of_run(
    run: run_folder.RunFolder,
    identity: dict[str, Any],
    spec: SearchSpec,
    name: str,
    trials: list[optuna.trial.FrozenTrial],
    tuned_on: list[dict[str, Any]],
    tolerance: float,
) -> list[str]:
    """What a run has otherwise than the study says."""
    from ser_scripts.runs.search import record_of

    where = "/".join(run.path.parts[-3:])
    told = run.record["search"]
    won = record_of(name, spec, trials[: int(told["num_trials"])])  # a study may have gone on after the run
    faults = [f"{where}/{run_folder.RUN}: search.{line}" for line in json_faults(told, won, tolerance)]
    source = f"{where}/{run_folder.SPEC}"
    base = parse(ModelSpec, identity["model"], source=name, kind="model")
    mine = parse(ModelSpec, run.spec["model"], source=source, kind="model")
    theirs = with_values(base, won["values"], source=name)
    contents = [_kept(model.model_dump(mode="json")) for model in (mine, theirs)]
    faults += [f"{source}: model.{line}" for line in json_faults(contents[0], contents[1], tolerance)]
    split = run.split()
    sides = {side: _speakers(split[split["split"] == side]) for side in run_folder.SPLIT_SIDES}
    heard = {(entry["corpus"], actor) for entry in tuned_on for actor in entry["actors"]}
    if met := heard & sides["test"] - {(corpus, "") for corpus, _ in heard}:
        faults.append(f"{where}: trials heard speakers whom it tests: {named('/'.join(one) for one in met)}")
    others = sides["train"] | sides["validation"]
    if strange := heard - others:
        faults.append(f"{where}: trials heard speakers who neither train nor select it: "
                      f"{named('/'.join(one) for one in strange)}")  # fmt: skip
    known = {(entry["corpus"], actor) for entry in run.record.get("tuned_on", ()) for actor in entry["actors"]}
    if lost := heard - known:
        faults.append(f"{where}/{run_folder.RUN}: tuned_on lacks {named('/'.join(one) for one in lost)}")
    same = (identity["split_seed"], identity["fold"]) == (run.record["split_seed"], run.record["fold"])
    if same and spec.amount_of_training_data == 1:
        clips = split[split["split"].isin(["train", "validation"])][["corpus", "path", "split"]]
        lines = sorted("\t".join(row) + "\n" for row in clips.itertuples(index=False, name=None))
        if digest(lines) != identity["split_sha256"]:
            faults.append(f"{where}/{run_folder.SPLIT}: not the clips that the trials heard")
        if heard != others:
            faults.append(f"{where}: tuned_on of the study does not name all of its train and validation speakers")
    return faults


def _speakers(table: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(table["corpus"], table["actor"], strict=True))


def _kept(model: dict[str, Any]) -> dict[str, Any]:
    """A model's content without what its trials may have otherwise."""
    return {key: _kept(value) if key == "training" else value for key, value in model.items() if key not in _OF_THE_RUN}
