"""Do a finished run again from its own record, in the environment of today, and say how far it comes out the same.

The record (spec.json) holds everything that a run's numbers depend on, so no experiment file is needed. What may differ
between then and now is told first: packages and hardware (environment.txt), the code's commit, the corpora's and the
encoder's checksums. Then the run is trained again in a folder of its own, and its predictions are compared.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ser_eval import run_folder
from ser_scripts.errors import BadInput, Finding
from ser_scripts.files import writable_folder
from ser_scripts.runs.comparing import Compared, check_tolerance, compare_predictions
from ser_scripts.runs.conditions import recorded_conditions
from ser_scripts.runs.plan import Experiment, Plan, Run, make_plan
from ser_scripts.settings import Folders
from ser_scripts.specs.base import parse
from ser_scripts.specs.experiment import ExperimentSpec
from ser_scripts.specs.model import ModelSpec

TOLERANCE = 1e-6
"""Largest difference of a probability that still counts as none: rounding in float32."""


@dataclass(frozen=True)
class Reproduction:
    """How far something came out the same."""

    differences: tuple[str, ...]
    """Of then and now, before anything is compared."""
    compared: tuple[Compared, ...]
    notes: tuple[str, ...] = ()

    @property
    def reproduced(self) -> bool:
        """Whether every comparison found no difference beyond the tolerance."""
        return bool(self.compared) and all(one.verdict != "different" for one in self.compared)

    def lines(self) -> list[str]:
        """For a terminal."""
        head = ["then and now:", *(f"  {line}" for line in self.differences)] if self.differences else []
        if not self.differences:
            head = ["then and now: the same environment, code and data"]
        return [*head, "compared:", *(f"  {one.line()}" for one in self.compared), *self.notes]


def reproduce_run(
    folder: Path,
    folders: Folders,
    *,
    device: str | None,
    tolerance: float | None,
    base: Path,
    out: Path | None,
    allow_imports: tuple[str, ...],
    say: Callable[[str], None],
) -> Reproduction:
    """Train the run of a run folder again and compare its predictions.

    Args:
        folder: of a finished run; it stays as it is
        folders: where corpora, encoders and caches lie
        device: to train on; the recorded one when absent, where this machine has it
        tolerance: largest difference of a probability that counts as none; `TOLERANCE` when absent
        base: the folder that relative paths in the record start from: that of the experiment's file
        out: keep the new run here; in a temporary folder when absent
        allow_imports: modules that augmentations may come from
        say: takes lines about the progress

    Raises:
        BadInput: the folder or its record is damaged, or this machine lacks the corpus, the encoder or the device
        Finding: the split of the record is not the one that the corpora of today give
    """
    tolerance = check_tolerance(tolerance, TOLERANCE)
    recorded = _read_run(folder)
    differences = []
    chosen, note = _device(device, recorded.record["device"])
    if note:
        differences.append(note)
    experiment = experiment_of(recorded, base)
    plan = make_plan(experiment, folders, progress=say)
    if plan.refused:
        listing = "; ".join(reason for _, reason in plan.refused)
        raise Finding(f"{folder}: its split cannot be drawn from the corpora as they are now: {listing}")
    run = _run_of(plan, recorded)
    with tempfile.TemporaryDirectory(prefix="ser-reproduce-") as scratch:
        place = writable_folder(out if out is not None else Path(scratch), remedy="give --out another folder")
        if out is not None and any(place.iterdir()):
            raise BadInput(f"--out {out}: the folder is not empty; name a new one")
        compared, told = _execute(run, plan, recorded, folders, place, chosen, allow_imports, tolerance, say)
    notes = [f"the new run: {out / run.folder}"] if out is not None else []
    notes += _not_compared(recorded, compared)
    return Reproduction((*differences, *told), tuple(compared), tuple(notes))


def _execute(
    run: Run,
    plan: Plan,
    recorded: run_folder.RunFolder,
    folders: Folders,
    place: Path,
    device: str,
    allow_imports: tuple[str, ...],
    tolerance: float,
    say: Callable[[str], None],
) -> tuple[list[Compared], list[str]]:
    """Train below `place`; the comparisons, and what differs between then and now."""
    from ser_scripts.runs.changes import differences
    from ser_scripts.runs.execute import Options, execute_plan
    from ser_scripts.runs.train_run import run_identity

    identity = run_identity(run, plan.manifests, folders, allow_imports=allow_imports)
    told = [f"spec {line}" for line in differences(recorded.spec, identity)]
    elsewhere = replace(folders, runs=place)
    outcomes = execute_plan(
        replace(plan, runs=(run,)), elsewhere, Options(device=device, allow_imports=allow_imports), say
    )
    if outcomes[0].status == "failed":
        raise Finding(f"the run failed: {outcomes[0].message}")
    new = run_folder.RunFolder(place / run.folder, run_folder.read_json(place / run.folder / run_folder.RUN))
    told = [*environment_differences(_environment(recorded.path), _environment(new.path)), *told]
    code = [{key: one.record["code"].get(key) for key in ("version", "commit", "dirty")} for one in (recorded, new)]
    told += [f"code {key}: {code[0][key]}, now {code[1][key]}" for key in code[0] if code[0][key] != code[1][key]]
    files = sorted(file.name for file in (new.path / run_folder.PREDICTIONS).glob("*.csv"))
    compared = []
    for name in files:
        old = recorded.path / run_folder.PREDICTIONS / name
        if not old.is_file():
            compared.append(Compared(f"{run_folder.PREDICTIONS}/{name}", "different", ("only now",)))
        else:
            new_file = new.path / run_folder.PREDICTIONS / name
            compared.append(compare_predictions(f"{run_folder.PREDICTIONS}/{name}", old, new_file, tolerance))
    return compared, told


def _read_run(folder: Path) -> run_folder.RunFolder:
    file = folder / run_folder.RUN
    if not file.is_file():
        raise BadInput(
            f"{folder} is no folder of a finished run (it has no {run_folder.RUN}); expected "
            "<runs>/<experiment>/<model>/<train corpora>/seed-<n>, or a file that `ser bundle` wrote"
        )
    record = run_folder.read_json(file)
    if not isinstance(record, dict) or (missing := [key for key in run_folder.REQUIRED if key not in record]):
        what = f"lacks {', '.join(missing)}" if isinstance(record, dict) else "holds no JSON object"
        raise BadInput(f"{file} {what}; {run_folder.DAMAGED}")
    recorded = run_folder.RunFolder(folder, record)
    if not (folder / run_folder.PREDICTIONS).is_dir() or not recorded.predictions():
        raise BadInput(f"{folder} holds no predictions to compare with; {run_folder.DAMAGED}")
    return recorded


def experiment_of(recorded: run_folder.RunFolder, base: Path) -> Experiment:
    """The experiment of one run, from spec.json alone: one model, one training set, one seed.

    Raises:
        BadInput: spec.json is damaged, or of a form that this version does not know
    """
    file = recorded.path / run_folder.SPEC
    spec = recorded.spec
    try:
        told, model = dict(spec["experiment"]), spec["model"]
        seeds = (spec["seed"], spec["split_seed"], spec["train_seed"])
        task = {key: value for key, value in told["task"].items() if key != "labels"}
        content = {
            **{key: told[key] for key in ("name", "train", "test", "preprocess", "allow_dropped")},
            "split": told["split"],
            "task": {key: value for key, value in task.items() if value not in (None, {}, [], ())},
            "models": [model["name"]],
            "augmentations": [told["augmentation"]],
            "train": [told["train"]],
            "seeds": [seeds[0]] if len(set(seeds)) == 1 else {"split_seeds": [seeds[1]], "train_seeds": [seeds[2]]},
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{file} lacks {error}; {run_folder.DAMAGED}") from None
    experiment = parse(ExperimentSpec, content, source=str(file), kind="experiment")
    experiment = experiment.model_copy(update={"conditions": tuple(recorded_conditions(recorded, [base, Path()]))})
    loaded = parse(ModelSpec, model, source=str(file), kind="model")
    words = {"description": recorded.record["description"]}
    loaded = loaded.model_copy(update={"factors": recorded.record["factors"]})
    protocol = None
    if told.get("protocol"):
        from ser_scripts import protocols

        protocol = protocols.get(told["protocol"]["name"])
    return Experiment(file, experiment.model_copy(update=words), (loaded,), (), protocol, folder=base)


def _run_of(plan: Plan, recorded: run_folder.RunFolder) -> Run:
    """The run of the record, among the folds of its split."""
    found = [run for run in plan.runs if run.split.fold == recorded.record["fold"]]
    if not found:
        folds = ", ".join(sorted(str(run.split.fold) for run in plan.runs))
        raise Finding(f"{recorded.path}: its fold {recorded.record['fold']} is not drawn any more; there are: {folds}")
    return replace(found[0], seed=int(recorded.record["seed"]))


def _device(wanted: str | None, recorded: str) -> tuple[str, str]:
    """The device to train on, and a line when it is not the recorded one."""
    from ser_scripts.runs.execute import find_device

    try:
        chosen = find_device(wanted or recorded)
    except BadInput:
        if wanted:
            raise
        chosen = find_device(None)
    return chosen, "" if chosen == recorded else f"device: {recorded}, now {chosen} (gives other bits)"


def _environment(folder: Path) -> str:
    file = folder / run_folder.ENVIRONMENT
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _parse_environment(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """What environment.txt says of the machine, and its packages by normalised name."""
    machine: dict[str, str] = {}
    packages: dict[str, str] = {}
    for line in text.splitlines():
        name, separator, version = line.partition("==")
        if separator:
            packages[re.sub(r"[-_.]+", "-", name).lower()] = version
        elif line.strip():
            key, _, value = line.partition(" ")
            machine[key] = value
    return machine, packages


def environment_differences(old: str, new: str) -> list[str]:
    """What two texts of environment.txt say otherwise; one line each, packages on one side only together."""
    if not old:
        return ["environment.txt is not there, so nobody knows the environment of then"]
    (machine, packages), (machine_now, packages_now) = _parse_environment(old), _parse_environment(new)

    def changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
        return [
            f"{key}: {before[key]}, now {after[key]}" for key in before if after.get(key, before[key]) != before[key]
        ]

    lines = changed(machine, machine_now)
    lines += [f"{key}: {machine[key]}, now none" for key in machine if key not in machine_now]
    lines += [f"{key}: none, now {machine_now[key]}" for key in machine_now if key not in machine]
    lines = [line for line in lines if not line.startswith("device:")]  # told before, with what it means
    lines += changed(packages, packages_now)
    for what, one, other in (("then", packages, packages_now), ("now", packages_now, packages)):
        if only := sorted(one.keys() - other.keys()):
            more = f", ... ({len(only)} in all)" if len(only) > 8 else ""
            lines.append(f"packages only {what}: {', '.join(only[:8])}{more}")
    return lines


def _not_compared(recorded: run_folder.RunFolder, compared: list[Compared]) -> list[str]:
    """Predictions that a run has from elsewhere: on further corpora, by `ser eval --on`."""
    done = {one.name for one in compared}
    names = [
        name
        for file in sorted((recorded.path / run_folder.PREDICTIONS).glob("*.csv"))
        if (name := f"{run_folder.PREDICTIONS}/{file.name}") not in done
    ]
    return [f"not compared, since training does not write them: {', '.join(names)}"] if names else []
