"""All runs of a model with a frozen encoder at once: embed every clip once, then train every head side by side."""

from __future__ import annotations

import datetime
import itertools
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ser_eval import run_folder
from ser_scripts import ratings
from ser_scripts.audio.store import ClipStore
from ser_scripts.features.embeddings import Embeddings, clip_key, open_embeddings
from ser_scripts.manifest import Manifest
from ser_scripts.modeling.frozen import FrozenEncoder, FrozenModel, frozen_encoder, kept
from ser_scripts.runs.conditions import Prepared, open_conditions, predict_conditions
from ser_scripts.runs.plan import Run
from ser_scripts.runs.predictor import HeadPredictor
from ser_scripts.runs.progress import counter
from ser_scripts.runs.train_run import (
    DEVICE,
    environment,
    finish,
    open_stores,
    prediction_table,
    run_record,
    vote_targets_of,
)
from ser_scripts.settings import Folders
from ser_scripts.specs.model import ModelSpec, PretrainedEncoder
from ser_scripts.splits import write_split
from ser_scripts.training.heads import Frames, HeadJob, Inputs, Rated, TrainedHead, train_heads
from ser_scripts.training.history import Trained, select, write_history
from ser_scripts.training.probabilities import softmax

HEADS_AT_ONCE = 64
"""Heads are trained in portions of about this many, and the run folders of a portion written before the next."""


@dataclass(frozen=True)
class Table:
    """Embeddings of all clips of some corpora."""

    values: Inputs
    """(N, L, D), or frames"""
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
    """Embeddings of clips in memory; those that the cache does not hold are computed.

    Args:
        spec: the model
        encoder: its encoder
        stores: decoded clips of each corpus, at the encoder's rate
        clips: (corpus, path), N of them
        folders: where the cache and the encoders lie
        device: where the encoder runs
        report: takes a line of progress
    """
    found, keys = embed_clips(spec, encoder, stores, clips, folders, device=device, report=report)
    rows = {clip: row for row, clip in enumerate(clips)}
    if kept(spec, encoder).form == "frames":
        return Table(_frames(found, keys), rows)
    values = found.table(keys)
    return Table(values.reshape(len(values), values.shape[1], -1), rows)


def embed_clips(
    spec: ModelSpec,
    encoder: FrozenEncoder,
    stores: Mapping[str, ClipStore],
    clips: Sequence[tuple[str, str]],
    folders: Folders,
    *,
    device: str,
    report: Callable[[str], None],
) -> tuple[Embeddings, list[str]]:
    """The cache with all these clips in it, and each clip's key there; arguments as of `embed_table`."""

    def build() -> Any:
        from ser_scripts.modeling.encoders import build_encoder

        return build_encoder(encoder.spec, models=folders.models, remote_code=folders.remote_code)

    samples = [stores[corpus][path] for corpus, path in clips]
    keys = [clip_key(one) for one in samples]
    found = open_embeddings(
        samples,
        keys,
        encoder.identity,
        kept(spec, encoder),
        folders.cache,
        build,
        device=device,
        progress=counter(report, f"embedding with {encoder.identity['name']}"),
        report=report,
    )
    return found, keys


def _frames(found: Embeddings, keys: Sequence[str]) -> Frames:
    """The frames of all clips in memory, half precision as they are kept."""
    parts = [found[key][:, 0] for key in keys]
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    values = np.concatenate(parts) if parts else np.empty((0, found.shape[-1]), dtype=np.float16)
    return Frames(values, starts)


def clips_of(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """(corpus, path) of every clip on some side of some run, sorted."""
    tables = {run.split.sha256: run.split.table for run in runs}.values()
    used = [table.loc[table["split"] != "unused", ["corpus", "path"]] for table in tables]
    return sorted({clip for table in used for clip in table.itertuples(index=False, name=None)})


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
    model = _spec(first)
    assert isinstance(model.encoder, PretrainedEncoder)
    encoder = frozen_encoder(model.encoder, models=folders.models, remote_code=folders.remote_code)
    plain = [run for run, *_ in runs]
    used = clips_of(plain)
    stores = open_stores(first, (corpus for corpus, _ in used), manifests, encoder.sample_rate_hz, folders, report)
    table = embed_table(model, encoder, stores, used, folders, device=device, report=report)
    truths = truths_of(plain, table)
    votes = votes_of(plain, manifests) if model.loss.targets == "votes" else {}
    targets = targets_of(truths, table, votes, len(first.labels))
    rated = rated_of(model, table, manifests)
    jobs = [jobs_of(run, table, targets) for run in plain]
    shared = (time.monotonic() - clock) / len(runs)
    total, done = sum(map(len, jobs)), 0
    for portion in _portions(jobs):
        clock = time.monotonic()
        trained = train_heads(
            table.values,
            truths,
            len(first.labels),
            [job for number in portion for job in jobs[number]],
            head=model.head,
            loss=model.loss,
            training=model.training,
            targets=targets if votes else None,
            rated=rated,
        )
        done += len(trained)
        report(f"{done} of {total} heads trained")
        heads = iter(trained)
        for number in portion:
            run, identity, prepared = runs[number]
            head = choose(list(itertools.islice(heads, len(jobs[number]))), model)
            soft = sum(clip in votes for clip in _clips(run, "train")) if votes else None
            _write(
                run,
                identity,
                prepared,
                manifests,
                stores,
                folders,
                encoder,
                table,
                head,
                soft,
                began,
                device,
                report,
            )
        seconds = round(shared + (time.monotonic() - clock) / len(portion), 3)
        for number in portion:
            run = runs[number][0]
            partial = _partial(run, folders)
            record = run_folder.read_json(partial / run_folder.RUN) | {"seconds": seconds}
            run_folder.write_json(partial / run_folder.RUN, record)
            finish(partial, folders.runs / run.folder)


def _spec(run: Run) -> ModelSpec:
    """The model of a run, which has a frozen encoder."""
    assert isinstance(run.model, ModelSpec)
    return run.model


def _portions(jobs: Sequence[Sequence[HeadJob]]) -> list[list[int]]:
    """Numbers of runs, in portions of `HEADS_AT_ONCE` heads or a little more."""
    portions: list[list[int]] = [[]]
    heads = 0
    for number, mine in enumerate(jobs):
        if heads >= HEADS_AT_ONCE:
            portions.append([])
            heads = 0
        portions[-1].append(number)
        heads += len(mine)
    return portions


def _partial(run: Run, folders: Folders) -> Path:
    final = folders.runs / run.folder
    return final.with_name(final.name + run_folder.PARTIAL_SUFFIX)


def truths_of(runs: Sequence[Run], table: Table) -> NDArray[np.int64]:
    """Index of every clip's label; -1 for clips whose label the task does not have."""
    index = {label: number for number, label in enumerate(runs[0].labels)}
    truths = np.full(len(table.values), -1, dtype=np.int64)
    for clips in {run.split.sha256: run.split.table for run in runs}.values():
        used = clips[clips["split"] != "unused"]
        for corpus, path, label in used[["corpus", "path", "class_id"]].itertuples(index=False, name=None):
            truths[table.rows[corpus, path]] = index.get(label, -1)
    return truths


def votes_of(runs: Sequence[Run], manifests: Mapping[str, Manifest]) -> dict[tuple[str, str], tuple[float, ...]]:
    """Shares of the raters' votes of every clip that some run trains on and that has some."""
    return {clip: shares for run in runs for clip, shares in vote_targets_of(run, manifests).items()}


def targets_of(
    truths: NDArray[np.int64], table: Table, votes: Mapping[tuple[str, str], tuple[float, ...]], num_labels: int
) -> NDArray[np.float32]:
    """The distribution over labels that each clip is trained on: its votes, or its label where it has none, (N, K)."""
    targets = np.eye(num_labels, dtype=np.float32)[truths]
    for clip, shares in votes.items():
        targets[table.rows[clip]] = shares
    return targets


def rated_of(spec: ModelSpec, table: Table, manifests: Mapping[str, Manifest]) -> Rated | None:
    """The ratings of every clip of a table; None for a model of classes alone."""
    if spec.ratings is None:
        return None
    values = np.full((len(table.values), len(spec.ratings.dimensions)), np.nan)
    for corpus in sorted({corpus for corpus, _ in table.rows}):
        paths = [path for other, path in table.rows if other == corpus]
        rows = [table.rows[corpus, path] for path in paths]
        values[rows] = ratings.clip_ratings(manifests[corpus], spec.ratings.dimensions, paths)
    return Rated(spec.ratings, values)


def _clips(run: Run, side: str) -> list[tuple[str, str]]:
    clips = run.split.table[run.split.table["split"] == side]
    return list(zip(clips["corpus"], clips["path"], strict=True))


def _side(run: Run, table: Table, side: str) -> NDArray[np.int64]:
    return np.array([table.rows[clip] for clip in _clips(run, side)], dtype=np.int64)


def jobs_of(run: Run, table: Table, targets: NDArray[np.float32]) -> list[HeadJob]:
    """The trainings of one run: one, or one per layer when validation is to choose."""
    spec, train = _spec(run), _side(run, table, "train")
    weights = np.ones(len(run.labels), dtype=np.float32)
    if spec.loss.class_weights and not (spec.ratings is not None and spec.ratings.only):
        from ser_scripts.modeling.losses import class_weights

        counts = targets[train].sum(axis=0, dtype=np.float64)
        # A class without a clip here is one that the task masks: the weight 1 is that of no clip.
        heard = (counts > 0) | (run.task.across != "masked")
        weights[heard] = class_weights(counts[heard].tolist()).numpy()
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
    if isinstance(table.values, Frames):
        return [replace(job, layer=0)]  # the one that is kept
    num_states = table.values.shape[1]
    if use == "weighted":
        return [job]
    if use == "search":
        return [replace(job, layer=layer) for layer in range(num_states)]
    return [replace(job, layer=num_states - 1 if use == "last" else int(use))]


def choose(heads: Sequence[TrainedHead], spec: ModelSpec) -> TrainedHead:
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
    soft: int | None,
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
    spec = _spec(run)
    wanted = kept(spec, encoder)
    layer = wanted.layers[0] if wanted.layers else head.layer
    model = FrozenModel(spec, run.labels, layer, head.weights, encoder.identity)
    clips = run.split.table
    tested = clips[clips["split"] == "test"]
    for corpus in sorted(set(tested["corpus"])):
        rows = tested[tested["corpus"] == corpus]
        index = [table.rows[clip] for clip in zip(rows["corpus"], rows["path"], strict=True)]
        rated: list[NDArray[np.float32]] = []
        logits = model.logits(_some(table.values, index), rated)
        further = ratings.rating_columns(manifests[corpus], model.dimensions, list(rows["path"]), rated)
        predictions = prediction_table(rows, softmax(logits), list(run.labels), further)
        run_folder.write_table(partial / run_folder.prediction_file(corpus), predictions)
    rows = clips[clips["split"] == "validation"]
    index = [table.rows[clip] for clip in zip(rows["corpus"], rows["path"], strict=True)]
    validation = prediction_table(rows, softmax(model.logits(_some(table.values, index))), list(run.labels))
    run_folder.write_table(partial / run_folder.VALIDATION, validation)
    degraded = open_conditions(run, run.experiment.conditions, prepared, folders, encoder.sample_rate_hz, report)
    predictor = HeadPredictor(model, folders, device, report)
    tested_under = predict_conditions(degraded, run, prepared, predictor, partial, device)
    if run.model.training.save_model != "none":
        model.save(partial / run_folder.MODEL)
    run_folder.write_text(partial / run_folder.ENVIRONMENT, environment(device, identity))
    record = run_record(
        run, dict(manifests), identity, Trained(head.history, head.selected, None), encoder.identity, began
    )
    used = clips[clips["split"] != "unused"]
    record |= {"conditions": tested_under, "device": device, "seconds": 0.0, "augmentation_inputs": {}}
    record["layer"] = layer
    record |= ratings.record(run, spec.ratings, manifests)
    if soft is not None:
        record["targets"] = {"votes": soft, "hard_label_for_want_of_votes": record["n_clips"]["train"] - soft}
    record["preprocess_events"] = {
        corpus: stores[corpus].event_counts(list(used.loc[used["corpus"] == corpus, "path"]))
        for corpus in sorted(set(used["corpus"]))
    }
    run_folder.write_json(partial / run_folder.RUN, record)


def _some(values: Inputs, rows: Sequence[int]) -> Inputs:
    """The embeddings, or frames, of some clips."""
    if not isinstance(values, Frames):
        return values[list(rows)]
    parts = [values.values[values.starts[row] : values.starts[row + 1]] for row in rows]
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return Frames(np.concatenate(parts), starts)
