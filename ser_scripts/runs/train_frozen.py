"""All runs of a model with a frozen encoder at once: embed every clip once, then train every head side by side."""

from __future__ import annotations

import datetime
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ser_eval import run_folder
from ser_scripts.audio.store import ClipStore, open_store
from ser_scripts.features.embeddings import Embeddings, clip_key, open_embeddings
from ser_scripts.manifest import Manifest
from ser_scripts.modeling.frozen import FrozenEncoder, FrozenModel, frozen_encoder, kept
from ser_scripts.runs.conditions import Prepared, open_conditions, predict_conditions
from ser_scripts.runs.plan import Run
from ser_scripts.runs.predictor import HeadPredictor
from ser_scripts.runs.progress import counter
from ser_scripts.runs.train_run import DEVICE, environment, finish, prediction_table, run_record
from ser_scripts.settings import Folders
from ser_scripts.specs.model import ModelSpec, PretrainedEncoder
from ser_scripts.splits import write_split
from ser_scripts.training.heads import HeadJob, TrainedHead, train_heads
from ser_scripts.training.history import Trained, select, write_history
from ser_scripts.training.probabilities import softmax


@dataclass(frozen=True)
class Table:
    """Embeddings of all clips of some corpora."""

    values: NDArray[np.float32]
    """(N, L, D)"""
    rows: Mapping[tuple[str, str], int]
    """(corpus, path) -> row"""


def embed_table(
    spec: ModelSpec,
    encoder: FrozenEncoder,
    stores: Mapping[str, ClipStore],
    clips: Sequence[tuple[str, str]],
    folders: Folders,
    *,
    device: str,
    report: Callable[[str], None],
) -> Table:
    """Embeddings of clips, from the cache where they are there.

    Args:
        spec: the model
        encoder: its encoder
        stores: decoded clips of each corpus, at the encoder's rate
        clips: (corpus, path), N of them
        folders: where the cache and the encoders lie
        device: where the encoder runs
        report: takes a line of progress
    """

    def build() -> Any:
        from ser_scripts.modeling.encoders import build_encoder

        return build_encoder(encoder.spec, models=folders.models)

    samples = [stores[corpus][path] for corpus, path in clips]
    keys = [clip_key(one) for one in samples]
    found: Embeddings = open_embeddings(
        samples,
        keys,
        encoder.identity,
        kept(spec),
        folders.cache,
        build,
        device=device,
        progress=counter(report, f"embedding with {encoder.identity['name']}"),
    )
    values = found.table(keys)
    return Table(values.reshape(len(values), values.shape[1], -1), {clip: row for row, clip in enumerate(clips)})


def train_frozen(
    runs: Sequence[tuple[Run, dict[str, Any], Prepared]],
    manifests: Mapping[str, Manifest],
    folders: Folders,
    *,
    device: str,
    report: Callable[[str], None],
) -> None:
    """Train the runs of one model and leave a run folder of each; the caller holds their locks.

    Args:
        runs: runs of one model and training set, each with its identity and its prepared conditions
        manifests: of all their corpora
        folders: where things lie
        device: where the encoder runs; heads train on the CPU
        report: takes a line of progress
    """
    began, clock = datetime.datetime.now(datetime.UTC), time.monotonic()
    first = runs[0][0]
    assert isinstance(first.model.encoder, PretrainedEncoder)
    encoder = frozen_encoder(first.model.encoder, models=folders.models)
    used = sorted(
        {
            clip
            for run, *_ in runs
            for clip in run.split.table.loc[run.split.table["split"] != "unused", ["corpus", "path"]].itertuples(
                index=False, name=None
            )
        }
    )
    stores = {
        corpus: open_store(
            manifests[corpus],
            encoder.sample_rate_hz,
            first.experiment.preprocess,
            folders.cache,
            counter(report, f"decoding {corpus}"),
            base=first.base,
        )
        for corpus in sorted({corpus for corpus, _ in used})
    }
    table = embed_table(first.model, encoder, stores, used, folders, device=device, report=report)
    jobs: list[HeadJob] = []
    owners: list[int] = []
    truths = _truths(runs, table)
    for number, (run, *_) in enumerate(runs):
        candidates = _candidates(run, table, truths)
        jobs += candidates
        owners += [number] * len(candidates)
    model = first.model
    trained = train_heads(
        table.values,
        truths,
        len(first.labels),
        jobs,
        head=model.head,
        loss=model.loss,
        training=model.training,
        workers=os.cpu_count() or 1,
        progress=lambda done, total: report(f"{done} of {total} heads trained") if done == total else None,
    )
    for number, (run, identity, prepared) in enumerate(runs):
        mine = [head for head, owner in zip(trained, owners, strict=True) if owner == number]
        _write(
            run,
            identity,
            prepared,
            manifests,
            stores,
            folders,
            encoder,
            table,
            _choose(mine, run.model),
            began,
            device,
            report,
        )
    seconds = round((time.monotonic() - clock) / len(runs), 3)
    for run, *_ in runs:
        partial = _partial(run, folders)
        record = run_folder.read_json(partial / run_folder.RUN) | {"seconds": seconds}
        run_folder.write_json(partial / run_folder.RUN, record)
        finish(partial, folders.runs / run.folder)


def _partial(run: Run, folders: Folders) -> Path:
    final = folders.runs / run.folder
    return final.with_name(final.name + run_folder.PARTIAL_SUFFIX)


def _truths(runs: Sequence[tuple[Run, dict[str, Any], Prepared]], table: Table) -> NDArray[np.int64]:
    """Index of every clip's label; -1 for clips whose label the task does not have."""
    index = {label: number for number, label in enumerate(runs[0][0].labels)}
    truths = np.full(len(table.values), -1, dtype=np.int64)
    for run, *_ in runs:
        clips = run.split.table[run.split.table["split"] != "unused"]
        for corpus, path, label in clips[["corpus", "path", "class_id"]].itertuples(index=False, name=None):
            truths[table.rows[corpus, path]] = index.get(label, -1)
    return truths


def _side(run: Run, table: Table, side: str) -> NDArray[np.int64]:
    clips = run.split.table[run.split.table["split"] == side]
    return np.array([table.rows[clip] for clip in zip(clips["corpus"], clips["path"], strict=True)], dtype=np.int64)


def _candidates(run: Run, table: Table, truths: NDArray[np.int64]) -> list[HeadJob]:
    """The trainings of one run: one, or one per layer when validation is to choose."""
    spec, train = run.model, _side(run, table, "train")
    num_states = table.values.shape[1]
    if spec.loss.class_weights:
        from ser_scripts.modeling.losses import class_weights

        counts = np.bincount(truths[train], minlength=len(run.labels))
        weights = class_weights(counts.tolist()).numpy()
    else:
        weights = np.ones(len(run.labels), dtype=np.float32)
    rate = spec.training.head_learning_rate or spec.training.learning_rate
    job = HeadJob(
        seed=run.train_seed,
        train=train,
        validation=_side(run, table, "validation"),
        class_weights=weights,
        learning_rate=rate,
        weight_decay=spec.training.weight_decay,
    )
    use = spec.layers.use
    if use == "weighted":
        return [job]
    if use == "search":
        return [replace(job, layer=layer) for layer in range(num_states)]
    return [replace(job, layer=num_states - 1 if use == "last" else int(use))]


def _choose(heads: Sequence[TrainedHead], spec: ModelSpec) -> TrainedHead:
    """The head that validation prefers, by the rule that also picks the epoch; the lower layer at a tie."""
    return heads[select([head.selected for head in heads], spec.training.select)] if len(heads) > 1 else heads[0]


def _write(
    run: Run,
    identity: dict[str, Any],
    prepared: Prepared,
    manifests: Mapping[str, Manifest],
    stores: Mapping[str, ClipStore],
    folders: Folders,
    encoder: FrozenEncoder,
    table: Table,
    head: TrainedHead,
    began: datetime.datetime,
    device: str,
    report: Callable[[str], None],
) -> None:
    """Everything of a run folder, still under its partial name."""
    partial = _partial(run, folders)
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed; heads train in seconds
    (partial / run_folder.PREDICTIONS).mkdir(parents=True)
    run_folder.write_json(partial / run_folder.SPEC, identity)
    run_folder.write_text(partial / DEVICE, device)
    write_split(run.split, partial)
    write_history(partial / run_folder.HISTORY, head.history)
    model = FrozenModel(run.model, run.labels, head.layer, head.weights, encoder.identity)
    clips = run.split.table
    tested = clips[clips["split"] == "test"]
    for corpus in sorted(set(tested["corpus"])):
        rows = tested[tested["corpus"] == corpus]
        index = [table.rows[clip] for clip in zip(rows["corpus"], rows["path"], strict=True)]
        predictions = prediction_table(rows, softmax(model.logits(table.values[index])), list(run.labels))
        run_folder.write_table(partial / run_folder.prediction_file(corpus), predictions)
    degraded = open_conditions(run, run.experiment.conditions, prepared, folders, encoder.sample_rate_hz, report)
    predictor = HeadPredictor(model, folders, device, report)
    tested_under = predict_conditions(degraded, run, prepared, predictor, partial, device)
    if run.model.training.save_model != "none":
        model.save(partial / run_folder.MODEL)
    run_folder.write_text(partial / run_folder.ENVIRONMENT, environment(device))
    record = run_record(
        run, dict(manifests), identity, Trained(head.history, head.selected, None), encoder.identity, began
    )
    used = clips[clips["split"] != "unused"]
    record |= {"conditions": tested_under, "device": device, "seconds": 0.0, "augmentation_inputs": {}}
    record["layer"] = head.layer
    record["preprocess_events"] = {
        corpus: stores[corpus].event_counts(list(used.loc[used["corpus"] == corpus, "path"]))
        for corpus in sorted(set(used["corpus"]))
    }
    run_folder.write_json(partial / run_folder.RUN, record)
