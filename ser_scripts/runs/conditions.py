"""Test conditions: the same test clips, degraded or read from a twin folder, predicted now or for runs long finished.

A condition changes what is tested, not what is trained: it is no part of a run's identity. A run's record tells what
each of its conditions was made of, so that one name never stands for two things.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ser_eval import run_folder
from ser_eval.band import bandwidths, is_band_limited
from ser_scripts.audio.preprocess import CHAIN_VERSION, chain_inputs, moved_chain, resolve_chain, versions
from ser_scripts.corpora._files import TWIN_FOLDERS
from ser_scripts.corpora.twins import twin_paths
from ser_scripts.errors import BadInput, about
from ser_scripts.manifest import Manifest, build_manifest
from ser_scripts.runs.changes import differences
from ser_scripts.runs.plan import Plan, Run
from ser_scripts.runs.predictor import Predictor, load_predictor, predict
from ser_scripts.runs.progress import counter
from ser_scripts.settings import Folders
from ser_scripts.specs.base import digest, parse
from ser_scripts.specs.conditions import Condition
from ser_scripts.specs.corpora import CorpusSpec
from ser_scripts.specs.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from ser_scripts.audio.store import ClipStore

COMPARED = ("steps", "inputs", "twin", "twin_sha256", "arithmetic")
"""Keys of a condition's record that say what it is."""
_PLACES = ("weights", "folder")
"""Keys of a step that say where a file lies, which changes nothing: `inputs` has its checksum."""


@dataclass(frozen=True)
class ConditionClips:
    """The clips of one corpus that some run of a plan tests, as one condition finds them."""

    manifest: Manifest
    """Of the files that are read, and no others."""
    files: dict[str, str]
    """Path of the file that is read, by the clip's path in the split."""


@dataclass(frozen=True)
class Prepared:
    """What the runs of a plan share of its conditions."""

    clips: dict[tuple[str, str], ConditionClips] = field(default_factory=dict)
    """By condition and corpus."""
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each condition is made of, by its name; `twin_sha256` by corpus."""


@dataclass(frozen=True)
class Tested:
    """The test clips of one corpus of a run under one condition."""

    condition: Condition
    corpus: str
    rows: pd.DataFrame
    """Of split.csv."""
    store: ClipStore
    paths: list[str]
    """Of the clips in the store, in the order of the rows."""


def prepare_conditions(plan: Plan, folders: Folders, say: Callable[[str], None]) -> Prepared:
    """Check the conditions of a plan, and read the twins of its test clips; faults show before any training.

    Raises:
        BadInput: a file or folder that a step names does not exist, or clips have no twin; naming condition and clips
    """
    experiment = plan.experiment.spec
    prepared = Prepared()
    if not experiment.conditions:
        return prepared
    corpora = {corpus.name: corpus for corpus in (*experiment.test, *(c for group in experiment.train for c in group))}
    tested: dict[str, set[str]] = {}
    for run in plan.runs:
        rows = _test_rows(run)
        for corpus, path in zip(rows["corpus"], rows["path"], strict=True):
            tested.setdefault(corpus, set()).add(path)
    for condition in experiment.conditions:
        try:
            record = _contents(condition, plan.experiment.base)
            narrow = condition.narrows_band
            for corpus in sorted(tested):
                manifest, paths = plan.manifests[corpus], sorted(tested[corpus])
                files = {path: path for path in paths}
                if condition.twin is not None:
                    there = twin_paths(manifest, condition.twin)
                    twins = _twins(condition.twin, corpora[corpus], plan, folders, say)
                    manifest, files = twins, {path: there[path] for path in paths}
                    record["twin_sha256"][corpus] = twins.sha256
                    narrow = narrow or is_band_limited(bandwidths(twins.clips)[corpus])
                kept = manifest.clips[manifest.clips["path"].isin(files.values())].reset_index(drop=True)
                if faulty := sorted(set(files.values()) - set(kept["path"])):
                    more = f", ... ({len(faulty)} in all)" if len(faulty) > 5 else ""
                    raise BadInput(f"{manifest.root}: twins that cannot be used: {', '.join(faulty[:5])}{more}")
                prepared.clips[condition.name, corpus] = ConditionClips(replace(manifest, clips=kept), files)
        except BadInput as error:
            raise BadInput(f"{plan.experiment.file}: condition '{condition.name}': {error}") from None
        prepared.records[condition.name] = {**record, "narrows_band": narrow}
    return prepared


def describe_conditions(plan: Plan, folders: Folders, say: Callable[[str], None]) -> list[str]:
    """Lines about the conditions of a plan, checked; none without conditions."""
    conditions = plan.experiment.spec.conditions
    if not conditions:
        return []
    prepared = prepare_conditions(plan, folders, say)
    seconds = sum(float(clips.manifest.clips["duration_seconds"].sum()) for clips in prepared.clips.values())
    return [
        f"  test conditions: clean, {', '.join(condition.name for condition in conditions)}",
        f"  disk: about {seconds * 16000 * 4 / 1e9:.2f} GB of their clips under {folders.cache}",
    ]


def lacking(run: Run, prepared: Prepared, folders: Folders, *, force: bool) -> tuple[Condition, ...]:
    """The conditions that a finished run has not been tested under.

    Raises:
        BadInput: a condition of this name was another one (not with `force`, which has it tested anew), or the run did
            not keep the weights that it was tested with
    """
    folder = folders.runs / run.folder
    known = run_folder.read_json(folder / run_folder.RUN).get("conditions", {})
    corpora = sorted(set(_test_rows(run)["corpus"]))
    todo = []
    for condition in run.experiment.conditions:
        files = [folder / run_folder.prediction_file(corpus, condition.name) for corpus in corpora]
        old, new = known.get(condition.name), _record(condition, prepared, corpora)
        differing = [key for key in COMPARED if old is not None and _plain(old[key]) != _plain(new[key])]
        if differing and not force:
            lines = [line for key in differing for line in differences(_plain(old[key]), _plain(new[key]), key)]
            listed = "\n".join(f"  {line}" for line in lines)
            raise BadInput(
                f"{folder} was tested under another condition '{condition.name}':\n{listed}\n"
                "Give the condition another name, or use --force to test it again."
            )
        if old is None or differing or not all(file.is_file() for file in files):
            todo.append(condition)
    if todo:
        names = ", ".join(condition.name for condition in todo)
        training = run.model.training
        if training.save_model == "none" or training.save_model == "last" != training.select:
            kept = (
                "kept no weights (training.save_model is 'none')"
                if training.save_model == "none"
                else f"kept its last weights, but was tested with those that '{training.select}' selected"
            )
            raise BadInput(
                f"{folder} was not tested under {names}, and {kept}; move the folder away to train it again, or take "
                "the conditions out"
            )
    return tuple(todo)


def open_conditions(
    run: Run,
    conditions: Sequence[Condition],
    prepared: Prepared,
    folders: Folders,
    rate_hz: int,
    report: Callable[[str], None],
) -> list[Tested]:
    """The degraded test clips of a run; those that the cache does not hold are made.

    The steps of a condition come first and the experiment's preprocessing after them, as with a recording that was
    degraded before anybody got it. There a clip in which no speech is found any more is kept, since every condition
    has the same clips.
    """
    from ser_scripts.audio.store import open_store

    rows = _test_rows(run)
    tested = []
    for condition in conditions:
        for corpus in sorted(set(rows["corpus"])):
            clips = prepared.clips[condition.name, corpus]
            mine = rows[rows["corpus"] == corpus]
            store = open_store(
                clips.manifest,
                rate_hz,
                conditioned_chain(condition.steps, run.experiment.preprocess),
                folders.cache,
                counter(report, f"degrading {corpus} ({condition.name})"),
                base=run.base,
            )
            tested.append(Tested(condition, corpus, mine, store, [clips.files[path] for path in mine["path"]]))
    return tested


def predict_conditions(
    tested: Sequence[Tested], run: Run, prepared: Prepared, predictor: Predictor, folder: Path, device: str
) -> dict[str, Any]:
    """Write the prediction files of conditions into a run folder; returns their records by name, for run.json."""
    from ser_scripts.runs.train_run import prediction_table
    from ser_scripts.training.probabilities import softmax

    records: dict[str, Any] = {}
    for part in tested:
        manifest = prepared.clips[part.condition.name, part.corpus].manifest
        logits, ratings = predict(predictor, manifest, part.store, part.paths)
        table = prediction_table(part.rows, softmax(logits), list(run.labels), ratings)
        run_folder.write_table(folder / run_folder.prediction_file(part.corpus, part.condition.name), table)
        corpora = [other.corpus for other in tested if other.condition == part.condition]
        record = records.setdefault(part.condition.name, _record(part.condition, prepared, corpora))
        record.setdefault("events", {})[part.corpus] = part.store.event_counts(part.paths)
        record |= {"device": device, "versions": versions(part.condition.steps)}
    return records


def add_conditions(
    run: Run,
    conditions: Sequence[Condition],
    prepared: Prepared,
    folders: Folders,
    *,
    device: str,
    report: Callable[[str], None],
) -> None:
    """Test a finished run under further conditions with the weights that it kept. The caller holds the run's lock."""
    folder = folders.runs / run.folder
    predictor = load_predictor(folder / run_folder.MODEL, folders, device=device, report=report)
    tested = open_conditions(run, conditions, prepared, folders, predictor.sample_rate_hz, report)
    records = predict_conditions(tested, run, prepared, predictor, folder, device)
    record = run_folder.read_json(folder / run_folder.RUN)
    run_folder.write_json(folder / run_folder.RUN, record | {"conditions": record.get("conditions", {}) | records})


def recorded_conditions(run: run_folder.RunFolder, places: Sequence[Path] = ()) -> list[Condition]:
    """The conditions that a finished run was tested under, from its record.

    Args:
        run: it
        places: where relative paths of its experiment may start now, if the project has moved

    Raises:
        BadInput: if a file that a step names has gone or changed
    """
    conditions = []
    for name, content in sorted(run.record.get("conditions", {}).items()):
        source = f"{run.path / run_folder.RUN}, condition '{name}'"
        keys = {"name": name, "steps": content["steps"], "twin": content["twin"]}
        condition = parse(Condition, keys, source=source, kind="run record")
        with about(source):
            steps = moved_chain(condition.steps, content["inputs"], places)
        conditions.append(condition.model_copy(update={"steps": steps}))
    return conditions


def conditioned_chain(
    steps: Sequence[PreprocessSpec], preprocess: Sequence[PreprocessSpec]
) -> tuple[PreprocessSpec, ...]:
    """The steps of a condition, then the preprocessing, which keeps every clip."""
    kept = [
        step.model_copy(update={"no_speech": "keep"}) if getattr(step, "no_speech", "keep") == "refuse" else step
        for step in preprocess
    ]
    return (*steps, *kept)


def _test_rows(run: Run) -> pd.DataFrame:
    return run.split.table[run.split.table["split"] == "test"]


def _contents(condition: Condition, base: Path) -> dict[str, Any]:
    return {
        "steps": [step.model_dump(mode="json") for step in resolve_chain(condition.steps, base)],
        "inputs": chain_inputs(condition.steps, base),
        "twin": condition.twin,
        "twin_sha256": {},
        "arithmetic": CHAIN_VERSION if condition.steps else None,
    }


def _record(condition: Condition, prepared: Prepared, corpora: Sequence[str]) -> dict[str, Any]:
    """What a condition is to a run that tests these corpora, and a digest of what it is to every run."""
    record = prepared.records[condition.name]
    twins = {name: sha for name, sha in record["twin_sha256"].items() if name in corpora}
    content = _plain({key: record[key] for key in ("steps", "inputs", "twin", "arithmetic")})
    return {**record, "twin_sha256": twins, "sha256": digest(content)}


def _plain(value: Any) -> Any:
    """A record without the places of files."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items() if key not in _PLACES}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _twins(twin: str, corpus: CorpusSpec, plan: Plan, folders: Folders, say: Callable[[str], None]) -> Manifest:
    """The corpus as it is read from the other folder: a corpus that is read from a twin has the folder beside it."""
    back = corpus.twin is not None and TWIN_FOLDERS.get(corpus.twin) == twin
    return build_manifest(
        corpus.model_copy(update={"twin": None if back else twin}),
        data=folders.data,
        locations=folders.locations,
        cache=folders.cache,
        base=plan.experiment.base,
        allow_dropped=plan.experiment.spec.allow_dropped,
        progress=counter(say, f"reading {corpus.name} ({twin})"),
    )
