"""Predict with finished runs: on a further corpus, or for a table of models and CSV files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from ser_eval import run_folder
from ser_eval.evaluate import evaluate_predictions
from ser_scripts.audio.preprocess import moved_chain
from ser_scripts.errors import BadInput, SplitRefused, about
from ser_scripts.files import writable_folder
from ser_scripts.leaks import read_delimited
from ser_scripts.manifest import Manifest, build_manifest
from ser_scripts.runs.check import corpus_spec
from ser_scripts.runs.conditions import conditioned_chain, recorded_conditions
from ser_scripts.runs.ensemble import refresh_derived
from ser_scripts.runs.execute import find_device, write_clips
from ser_scripts.runs.heard import heard_by
from ser_scripts.runs.progress import counter
from ser_scripts.runs.train_run import prediction_table
from ser_scripts.settings import folders
from ser_scripts.specs.base import parse
from ser_scripts.specs.corpora import CorpusSpec
from ser_scripts.specs.experiment import ExperimentSpec
from ser_scripts.specs.preprocess import PreprocessSpec
from ser_scripts.specs.task import TaskSpec
from ser_scripts.tasks import names_of, relabelled

TABLE_COLUMNS = ["model_name", "dataset_name", "model_path", "eval_csv_path", "eval_out_path"]


def predict_on(
    folder: Path,
    corpus: str,
    *,
    device: str | None,
    say: Callable[[str], None],
    base: Path = Path("experiments"),
    allow_remote_code: bool = False,
) -> None:
    """Predict on all clips of a corpus with every finished run of an experiment that kept its weights.

    The corpus goes through the test conditions of the runs, too, but for those that read a twin folder.

    Args:
        folder: of the experiment, below the runs folder
        corpus: a name, or a CSV or folder of clips
        device: where to predict; found when None
        say: takes lines about the progress
        base: folder of the experiment's file, where sounds and weights are looked for that are not where they were
        allow_remote_code: run the code of an encoder that brings its own

    Raises:
        SplitRefused: if a run has trained or selected on speakers or recordings of that corpus
        BadInput: if no run kept weights
    """
    spec = corpus_spec(corpus)
    where = folders()
    manifest = build_manifest(
        spec,
        data=where.data,
        locations=where.locations,
        cache=where.cache,
        base=Path(),
        progress=counter(say, f"reading {spec.name}"),
    )
    runs = [run for run in run_folder.find_runs(folder) if not run_folder.is_derived(run)]
    if not runs:
        raise BadInput(f"{folder} holds no finished run; train first")
    mapped: dict[Path, Manifest] = {}
    chains, conditions = {}, {}
    for run in runs:  # all of them before the first is predicted, so that a cell never holds some seeds only
        own = {*run.record["train_corpora"], *run.record["test_corpora"]}
        if spec.name in own:
            raise BadInput(
                f"{run.path}: '{spec.name}' is a corpus of this run already; give the CSV another file name, "
                "or evaluate without --on"
            )
        if run.spec["model"]["training"]["save_model"] == "none":
            raise BadInput(f"{run.path} kept no weights (training.save_model is 'none')")
        mapped[run.path] = _mapped(run, spec, manifest)
        if len(shared := sorted(set(mapped[run.path].clips["class_id"]) & set(run.record["labels"]))) < 2:
            raise BadInput(
                f"'{spec.name}' shares {', '.join(shared) or 'no class'} with the labels of {run.path} "
                f"({', '.join(run.record['labels'])}); a test needs two classes"
            )
        _refuse_other_weights(run)
        _refuse_heard(run.path, manifest)
        chains[run.path] = _preprocess(run, [base, Path()])
        conditions[run.path] = recorded_conditions(run, [base, Path()])
    write_clips(folder, [manifest])
    for run in runs:
        target = run.path / run_folder.prediction_file(spec.name)
        mine = mapped[run.path]
        chain = chains[run.path]
        table = predict_clips(
            run.path / run_folder.MODEL, mine, chain, device=device, say=say, allow_remote_code=allow_remote_code
        )
        run_folder.write_table(target, table)
        for condition in conditions[run.path]:
            if condition.twin is not None:
                say(f"{run.path}: {spec.name} is not tested under '{condition.name}', which reads other files")
                continue
            steps = conditioned_chain(condition.steps, chain)
            degraded = predict_clips(
                run.path / run_folder.MODEL, mine, steps, device=device, say=say, allow_remote_code=allow_remote_code
            )
            run_folder.write_table(run.path / run_folder.prediction_file(spec.name, condition.name), degraded)
        if moves := relabelled(manifest.clips["class_id"], mine.clips["class_id"]):
            relabelled_before = run.record.get("relabelled", {})
            run_folder.write_json(
                run.path / run_folder.RUN, run.record | {"relabelled": {**relabelled_before, spec.name: moves}}
            )
        say(f"{target}: {len(table)} clips")
    refresh_derived(folder, say)


def _mapped(run: run_folder.RunFolder, corpus: CorpusSpec, manifest: Manifest) -> Manifest:
    """The manifest with the classes of the run's task; labels outside it stay, for the evaluation to name."""
    content = run.spec["experiment"].get("task")
    if content is None:
        return manifest
    task = parse(
        TaskSpec,
        {key: value for key, value in content.items() if key != "labels"},
        source=str(run.path / run_folder.SPEC),
        kind="run record",
    )
    labels = manifest.clips["class_id"]
    new = {label: task.new_label(label, names_of(corpus)) or label for label in sorted(set(labels))}
    return dataclasses.replace(manifest, clips=manifest.clips.assign(class_id=labels.map(new)))


def _refuse_other_weights(run: run_folder.RunFolder) -> None:
    """Refuse a run that kept other weights than those it was tested with."""
    training = run.spec["model"]["training"]
    if training["save_model"] == "last" != training["select"]:
        raise BadInput(
            f"{run.path} kept its last weights (training.save_model), but was tested with those that "
            f"'{training['select']}' selected: figures of both would stand in one row"
        )


def _refuse_heard(run: Path, manifest: Manifest) -> None:
    """Refuse to test a run on speakers or recordings that it has trained or selected on."""
    if known := heard_by(run).meets(manifest.clips):
        more = f", ... ({len(known)} in all)" if len(known) > 5 else ""
        raise SplitRefused(
            f"{run}: has trained or selected on speakers or recordings of '{manifest.corpus}': "
            f"{', '.join(known[:5])}{more}; its own test side is evaluated without --on"
        )


def _preprocess(run: run_folder.RunFolder, places: Sequence[Path]) -> tuple[PreprocessSpec, ...]:
    """The preprocessing steps that a run was trained with, with the files that it was trained with.

    Raises:
        BadInput: if a file that a step names has gone or changed
    """
    content = run.spec["experiment"]
    probe = {
        "name": content["name"],
        "train": content["train"],
        "models": ["any"],
        "split": content["split"],
        "test": content["test"],
        "preprocess": run.record["preprocess"],
    }
    chain = parse(ExperimentSpec, probe, source=str(run.path / run_folder.RUN), kind="run record").preprocess
    with about(f"{run.path / run_folder.RUN}, its preprocessing"):
        return moved_chain(chain, run.record["inputs"].get("preprocess_sha256", {}), places)


def predict_clips(
    model_folder: Path,
    manifest: Manifest,
    preprocess: tuple[PreprocessSpec, ...],
    *,
    device: str | None,
    say: Callable[[str], None],
    allow_remote_code: bool = False,
) -> pd.DataFrame:
    """Predictions of a saved model on every clip of a manifest; runs code that comes with it where that is allowed."""
    from ser_scripts.audio.store import open_store
    from ser_scripts.runs.predictor import load_predictor, predict
    from ser_scripts.training.probabilities import softmax

    where = folders(remote_code=allow_remote_code)
    predictor = load_predictor(model_folder, where, device=find_device(device), report=say)
    store = open_store(manifest, predictor.sample_rate_hz, preprocess, where.cache, counter(say, "decoding"))
    logits, ratings = predict(predictor, manifest, store, list(manifest.clips["path"]))
    return prediction_table(manifest.clips, softmax(logits), list(predictor.labels), ratings)


def evaluate_table(
    file: Path, *, device: str | None, say: Callable[[str], None], allow_remote_code: bool = False
) -> list[str]:
    """Evaluate each row of a table: a saved model on the clips of a CSV.

    The model path is a run folder or its `model` folder; eval_csv_path is a CSV of clips, or a folder that holds
    test.csv. Into eval_out_path go predictions.csv and metrics.json.
    """
    table = read_delimited(file, TABLE_COLUMNS, what="table of models")
    where = folders()
    lines = []
    if table.empty:
        raise BadInput(f"{file} has no rows")
    for number, row in enumerate(table.to_dict("records"), start=2):
        if empty := [column for column in TABLE_COLUMNS if not row[column]]:
            raise BadInput(f"{file}: row {number} has no {', '.join(empty)}")
        run = Path(row["model_path"])
        model_folder = run / run_folder.MODEL if (run / run_folder.RUN).is_file() else run
        steps: tuple[PreprocessSpec, ...] = ()
        record = model_folder.parent / run_folder.RUN
        if record.is_file():
            recorded = run_folder.RunFolder(record.parent, run_folder.read_json(record))
            steps = _preprocess(recorded, [file.parent, Path()])
        csv = Path(row["eval_csv_path"])
        csv = csv / "test.csv" if csv.is_dir() else csv
        corpus = corpus_spec(str(csv))
        if corpus.kind != "csv":
            raise BadInput(f"{file}: eval_csv_path: '{csv}' is neither a .csv or .tsv file nor a folder with test.csv")
        manifest = build_manifest(
            corpus,
            data=where.data,
            locations=where.locations,
            cache=where.cache,
            base=Path(),
            progress=counter(say, f"reading {corpus.name}"),
        )
        if record.is_file():
            _refuse_heard(record.parent, manifest)
        predictions = predict_clips(
            model_folder, manifest, steps, device=device, say=say, allow_remote_code=allow_remote_code
        )
        out = Path(row["eval_out_path"])
        writable_folder(out, remedy="set eval_out_path")
        run_folder.write_table(out / "predictions.csv", predictions)
        labels = [
            column.removeprefix(run_folder.PROBABILITY_PREFIX)
            for column in predictions.columns
            if column.startswith(run_folder.PROBABILITY_PREFIX)
        ]
        metrics = evaluate_predictions(predictions, labels)
        run_folder.write_json(out / run_folder.METRICS, metrics)
        uar = metrics["uar"] if metrics["uar"] is not None else metrics["uar_present"]
        lines.append(f"{row['model_name']} on {row['dataset_name']}: UAR {uar:.4f}, {len(predictions)} clips -> {out}")
    return lines
