"""One run: train, predict, and leave a whole run folder; a kill anywhere leaves a `.partial` one that goes on."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ser_eval import run_folder
from ser_scripts import __version__, ratings, votes
from ser_scripts.audio.preprocess import chain_inputs, resolve_chain
from ser_scripts.errors import BadInput, about
from ser_scripts.manifest import Manifest
from ser_scripts.runs.conditions import Prepared, open_conditions, predict_conditions
from ser_scripts.runs.heard import Heard, heard_by
from ser_scripts.runs.plan import Plan, Run
from ser_scripts.runs.predictor import NetworkPredictor
from ser_scripts.runs.progress import counter
from ser_scripts.runs.source import recorded_source
from ser_scripts.settings import Folders
from ser_scripts.specs.augmentation import AugmentationSpec
from ser_scripts.specs.base import digest
from ser_scripts.specs.classical import ClassicalSpec
from ser_scripts.specs.model import ModelSpec, PretrainedEncoder
from ser_scripts.specs.spectrogram import SpectrogramEncoder
from ser_scripts.splits import write_split
from ser_scripts.training.history import BEST, CHECKPOINTS, LAST, MEMORY, Evaluation

if TYPE_CHECKING:
    from ser_scripts.audio.store import ClipStore

DEVICE = "device.txt"
"""In a `.partial` folder: what it was trained on so far; another device would give other bits."""


def train_run(
    run: Run,
    identity: dict[str, Any],
    manifests: dict[str, Manifest],
    prepared: Prepared,
    folders: Folders,
    *,
    device: str,
    loader_workers: int,
    allow_imports: Sequence[str],
    report: Callable[[str], None],
    stop: Callable[[Sequence[Evaluation]], bool] | None = None,
) -> None:
    """Train one run to its end, or until `stop` ends it (training/loop.py).

    The caller holds the run's lock and has checked what lies in its place.
    """
    import torch

    from ser_scripts.augment import Augmenter
    from ser_scripts.modeling.adapters import count_parameters
    from ser_scripts.modeling.encoders import build_encoder
    from ser_scripts.modeling.losses import class_weights
    from ser_scripts.modeling.model import SerModel
    from ser_scripts.training import loop
    from ser_scripts.training.compiling import Compiled
    from ser_scripts.training.data import Clip, FeatureSource, TrainingSet
    from ser_scripts.training.front import FrontCache
    from ser_scripts.training.memory import Fit
    from ser_scripts.training.probabilities import softmax
    from ser_scripts.training.seeding import derive, fix_arithmetic, seed_everything

    spec = run.network
    began = datetime.datetime.now(datetime.UTC)
    clock = time.monotonic()
    fix_arithmetic(spec.training.threads)

    final = folders.runs / run.folder
    partial = final.with_name(final.name + run_folder.PARTIAL_SUFFIX)
    if (partial / run_folder.RUN).is_file():  # killed between the last file and the rename
        finish(partial, final)
        return
    partial.mkdir(parents=True, exist_ok=True)
    run_folder.write_json(partial / run_folder.SPEC, identity)
    if (partial / DEVICE).is_file() and (before := (partial / DEVICE).read_text(encoding="utf-8")) != device:
        raise BadInput(f"{partial} was begun on '{before}'; go on with --device {before}, or delete the folder")
    run_folder.write_text(partial / DEVICE, device)
    table = run.split.table
    write_split(run.split, partial)

    seed_everything(derive("init", run.train_seed))
    encoder = build_encoder(spec.encoder, models=folders.models, remote_code=folders.remote_code)
    if encoder.code_sums() != identity["inputs"].get("encoder_code_sha256", {}):
        raise BadInput(
            f"{final}: the code of encoder '{encoder.identity()['name']}' has changed since the run was planned"
        )
    labels = list(run.labels)
    used = table[table["split"] != "unused"]
    stores = open_stores(run, used["corpus"], manifests, encoder.sample_rate_hz, folders, report)

    conditions = run.experiment.conditions
    degraded = open_conditions(run, conditions, prepared, folders, encoder.sample_rate_hz, report)

    def source(side: str, corpus: str | None = None) -> FeatureSource:
        rows = table[(table["split"] == side) & ((table["corpus"] == corpus) | (corpus is None))]
        index = {label: number for number, label in enumerate(labels)}
        clips = [
            Clip(name, path, index.get(label, -1))
            for name, path, label in zip(rows["corpus"], rows["path"], rows["class_id"], strict=True)
        ]
        if spec.ratings is not None:
            rated = ratings.targets(run, spec.ratings, manifests)
            clips = [replace(clip, ratings=rated[clip.corpus, clip.path]) for clip in clips]
        return FeatureSource(clips, stores, encoder)

    train_side = source("train")
    adversaries: dict[tuple[str, str], int] | None = None
    if spec.adversary is not None:
        train_rows = table[table["split"] == "train"]
        adversaries = ratings.adversary_classes(spec.adversary, train_rows, model=spec.name)
        train_side.clips = [
            replace(clip, adversary=adversaries[clip.corpus, actor])
            for clip, actor in zip(train_side.clips, train_rows["actor"], strict=True)
        ]
    counts: list[float] = [sum(clip.label == number for clip in train_side.clips) for number in range(len(labels))]
    if spec.loss.targets == "votes":
        targets = vote_targets_of(run, manifests)
        train_side.clips = [replace(clip, target=targets.get((clip.corpus, clip.path))) for clip in train_side.clips]
        counts = [
            sum(
                float(clip.label == number) if clip.target is None else clip.target[number] for clip in train_side.clips
            )
            for number in range(len(labels))
        ]
    weights = None
    if spec.loss.class_weights and not (spec.ratings is not None and spec.ratings.only):
        # A class without a clip here is one that the task masks: the weight 1 is that of no clip.
        heard = [number for number, count in enumerate(counts) if count > 0 or run.task.across != "masked"]
        weights = torch.ones(len(counts))
        weights[heard] = class_weights([counts[number] for number in heard])
    num_adversaries = None if adversaries is None else max(adversaries.values()) + 1
    model = SerModel(spec, labels, encoder=encoder, class_weights=weights, num_adversaries=num_adversaries)
    if run.init_from is not None:
        _initialise_from(model, run.init_from, folders)
    if spec.training.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    model.to(device)
    parameters = count_parameters(model)
    share = parameters["trained"] / parameters["total"]
    if share < 1:
        report(f"trains {parameters['trained']:,} of {parameters['total']:,} parameters ({share:.2%})")
    long_clips = _long_clips(model, used, stores)
    for line in long_clips.get("words", ()):
        report(line)
    fit = Fit(report)
    augmenter = (
        Augmenter(run.augmentation, seed=run.train_seed, allow_imports=allow_imports, base=run.base)
        if run.augmentation
        else None
    )
    training = TrainingSet(
        train_side, seed=run.train_seed, augmenter=augmenter, max_seconds=_cut_seconds(model), num_labels=len(labels)
    )
    compiled = (
        Compiled(encoder, training.lengths(), spec.training, folders.cache) if spec.training.torch_compile else None
    )
    trained = loop.train(
        model,
        spec.training,
        seed=run.train_seed,
        labels=labels,
        training=training,
        validation=source("validation"),
        folder=partial,
        device=device,
        loader_workers=loader_workers,
        run_name=run.folder.as_posix(),
        report=report,
        stop=stop,
        fit=fit,
        front=FrontCache(encoder, folders.cache if spec.training.epochs > 1 else None, report=report),
        compiled=compiled,
    )
    shutil.rmtree(partial / run_folder.PREDICTIONS, ignore_errors=True)  # of a condition since taken out, after a kill
    (partial / run_folder.PREDICTIONS).mkdir()
    for corpus in sorted(set(table.loc[table["split"] == "test", "corpus"])):
        test_side = source("test", corpus)
        rated: list[NDArray[np.float32]] = []
        logits = loop.predict_logits(
            model, test_side, spec.training, torch.device(device), fit=fit, step=trained.history[-1].step, rated=rated
        )
        rows = table[(table["split"] == "test") & (table["corpus"] == corpus)]
        further = ratings.rating_columns(manifests[corpus], model.dimensions, list(rows["path"]), rated)
        predictions = prediction_table(rows, softmax(logits), labels, further)
        run_folder.write_table(partial / run_folder.prediction_file(corpus), predictions)
    logits = loop.predict_logits(
        model, source("validation"), spec.training, torch.device(device), fit=fit, step=trained.history[-1].step
    )
    rows = table[table["split"] == "validation"]
    run_folder.write_table(partial / run_folder.VALIDATION, prediction_table(rows, softmax(logits), labels))
    tested_under = predict_conditions(degraded, run, prepared, NetworkPredictor(model, device, fit), partial, device)

    if spec.training.save_model == "last":
        loop.load_weights(model, partial / LAST, torch.device(device))
    if spec.training.save_model != "none":
        model.save(partial / run_folder.MODEL)
    run_folder.write_text(partial / run_folder.ENVIRONMENT, environment(device, identity))
    record = run_record(run, manifests, identity, trained, encoder.identity(), began)
    record |= {"conditions": tested_under, "device": device, "seconds": round(time.monotonic() - clock, 3)}
    record |= {"parameters": parameters, "long_clips": long_clips, "out_of_memory": fit.events}
    if compiled is not None:
        record["compiled"] = compiled.record()
    record["augmentation_inputs"] = augmenter.input_sha256() if augmenter else {}
    record["preprocess_events"] = {
        corpus: store.event_counts(list(used.loc[used["corpus"] == corpus, "path"])) for corpus, store in stores.items()
    }
    record |= ratings.record(run, spec.ratings, manifests)
    if adversaries is not None:
        record["adversary_classes"] = num_adversaries
    if spec.loss.targets == "votes":
        soft = sum(clip.target is not None for clip in train_side.clips)
        record["targets"] = {"votes": soft, "hard_label_for_want_of_votes": len(train_side.clips) - soft}
    run_folder.write_json(partial / run_folder.RUN, record)
    finish(partial, final)


def _cut_seconds(model: Any) -> float | None:
    """To what training clips are cut."""
    limits = (model.spec.training.max_seconds, model.window_seconds)
    return min((limit for limit in limits if limit is not None), default=None)


def _long_clips(model: Any, used: pd.DataFrame, stores: Mapping[str, Any]) -> dict[str, Any]:
    """Which clips are longer than the encoder hears at once, and what is done with them; {} where there is no limit."""
    encoder = model.encoder
    own, window = encoder.window_seconds, model.window_seconds
    limit = min(filter(None, (own, window)), default=None)
    if limit is None:
        return {}
    counts = {
        str(side): sum(
            stores[corpus].num_samples(path) > limit * encoder.sample_rate_hz
            for corpus, path in zip(rows["corpus"], rows["path"], strict=True)
        )
        for side, rows in used.groupby("split", sort=True)
    }
    cut = _cut_seconds(model)
    how = {
        "training": f"cut to {cut:g} s, at a place drawn per epoch"
        if cut is not None and cut <= limit
        else f"windows of {limit:g} s, hidden states averaged where they overlap",
        "evaluation": f"windows of {window:g} s, probabilities averaged"
        if window is not None
        else f"windows of {limit:g} s, hidden states averaged where they overlap",
    }
    words = [
        f"{count} {side} clips are longer than {limit:g} s: {how['training' if side == 'train' else 'evaluation']}"
        for side, count in counts.items()
        if count
    ]
    return {"seconds": limit, "clips": counts, **how, "words": words}


def open_stores(
    run: Run,
    corpora: Iterable[str],
    manifests: Mapping[str, Manifest],
    rate_hz: int,
    folders: Folders,
    report: Callable[[str], None],
) -> dict[str, ClipStore]:
    """The decoded clips of corpora, as the run's experiment preprocesses them."""
    from ser_scripts.audio.store import open_store

    return {
        corpus: open_store(
            manifests[corpus],
            rate_hz,
            run.experiment.preprocess,
            folders.cache,
            counter(report, f"decoding {corpus}"),
            base=run.base,
        )
        for corpus in sorted(set(corpora))
    }


def finish(partial: Path, final: Path) -> None:
    """Remove what only a resume needs, and give the folder its name."""
    for leftover in (CHECKPOINTS, BEST):
        if (partial / leftover).is_dir():
            shutil.rmtree(partial / leftover)
    for leftover in (LAST, DEVICE, MEMORY):
        (partial / leftover).unlink(missing_ok=True)
    partial.rename(final)


def prediction_table(
    rows: pd.DataFrame, probabilities: Any, labels: Sequence[str], ratings: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The table of one prediction file, rows by path.

    Args:
        rows: clips with corpus, path, actor, gender and class_id, N rows
        probabilities: (N, K), in the order of `rows` and `labels`
        labels: the K labels, sorted
        ratings: what `ratings.rating_columns` gives for the same clips; None or without columns for a model of classes
    """
    table = rows[["corpus", "path", "actor", "gender"]].reset_index(drop=True)
    table["truth"] = rows["class_id"].to_numpy()
    table["prediction"] = [labels[index] for index in probabilities.argmax(axis=1)]
    table["correct"] = (table["truth"] == table["prediction"]).astype(int)
    for number, label in enumerate(labels):
        table[run_folder.PROBABILITY_PREFIX + label] = probabilities[:, number]
    if ratings is not None:
        for column in ratings.columns:
            table[column] = ratings[column].to_numpy()
    return table.sort_values("path", kind="stable")


def _initialise_from(model: Any, run: Path, folders: Folders) -> None:
    """Copy the weights of a finished run: all of them when its labels are the same, else the encoder's."""
    from ser_scripts.modeling.adapters import load_plain_state, plain_state
    from ser_scripts.modeling.classical import is_classical
    from ser_scripts.modeling.frozen import is_frozen
    from ser_scripts.modeling.model import SerModel

    if not (run / run_folder.MODEL).is_dir():
        raise BadInput(f"init_from: {run} kept no weights (its training.save_model was 'none')")
    if is_classical(run / run_folder.MODEL) or is_frozen(run / run_folder.MODEL):
        what = "a classical model" if is_classical(run / run_folder.MODEL) else "a head over a frozen encoder"
        raise BadInput(f"init_from: {run} holds {what}, and no encoder that it has trained; name a fine-tuned run")
    start = SerModel.load(run / run_folder.MODEL, remote_code=folders.remote_code)
    same_task = start.labels == model.labels and start.dimensions == model.dimensions
    adversary = {name: value for name, value in model.state_dict().items() if name.startswith("adversary.")}
    try:
        if start.spec.adapter == model.spec.adapter:
            target, source = (model, start) if same_task else (model.encoder, start.encoder)
            target.load_state_dict(source.state_dict() | (adversary if same_task else {}))
        else:  # an adapter of the start is merged into its weights; one of this model starts afresh on them
            load_plain_state(model.encoder, plain_state(start.encoder))
            if same_task:
                rest = {name: value for name, value in start.state_dict().items() if not name.startswith("encoder.")}
                own = {name: value for name, value in model.state_dict().items() if name.startswith("encoder.")}
                model.load_state_dict(own | rest | adversary)
    except RuntimeError as error:
        raise BadInput(
            f"init_from: the model in {run / run_folder.MODEL} is built in another way than '{model.spec.name}': "
            f"{str(error).splitlines()[1].strip()}"
        ) from None


def run_record(
    run: Run,
    manifests: dict[str, Manifest],
    identity: dict[str, Any],
    trained: Any,
    encoder: dict[str, Any],
    began: datetime.datetime,
) -> dict[str, Any]:
    """The content of run.json."""
    table = run.split.table
    sides = run_folder.SPLIT_SIDES
    speakers = {
        side: len(set(zip(rows["corpus"], rows["actor"], strict=True)))
        for side, rows in table.groupby("split", sort=True)
        if side != "unused"
    }
    heard = heard_by(run.init_from) if run.init_from else Heard()
    return {
        "experiment": run.experiment.name,
        "description": run.experiment.description,
        "model": run.model.name,
        "augmentation": run.augmentation.name if run.augmentation else None,
        "factors": run.model.factors,
        "train_corpora": run.train_corpora,
        "test_corpora": sorted(set(table.loc[table["split"] == "test", "corpus"])),
        "seed": run.seed,
        "split_seed": run.split_seed,
        "train_seed": run.train_seed,
        "fold": run.split.fold,
        "split_kind": run.split.kind,
        "split_sha256": run.split.sha256,
        "splits_possible": run.split.possible,
        "speaker_dependent": run.split.speaker_dependent,
        "speakers_unknown": run.split.speakers_unknown,
        "validation_shares_speakers": run.split.validation_shares_speakers,
        "protocol": run.protocol.record() if run.protocol else None,
        "not_comparable": run.split.speaker_dependent or run.model.training.select == "last",
        "split_notes": list(run.split.notes),
        "labels": list(run.labels),
        "n_clips": {side: int((table["split"] == side).sum()) for side in sides},
        "n_speakers": {side: speakers.get(side, 0) for side in ("train", "validation", "test")},
        "spec_digest": digest(identity),
        "manifest_sha256": identity["manifest_sha256"],
        "dropped": [
            {"corpus": name, "path": path, "reason": reason}
            for name in identity["manifest_sha256"]
            for path, reason in manifests[name].dropped[["path", "reason"]].itertuples(index=False)
        ],
        "set_aside": {
            name: dict(sorted(Counter(manifests[name].set_aside["reason"]).items()))
            for name in identity["manifest_sha256"]
        },
        "left_out": [dict(zip(("corpus", "path", "class_id"), clip, strict=True)) for clip in run.task.left_out],
        "relabelled": run.task.relabelled,
        "not_shared": run.task.not_shared,
        "across": run.task.across,
        "preprocess": [step.model_dump(mode="json") for step in resolve_chain(run.experiment.preprocess, run.base)],
        "code": _code(),
        "started": began.isoformat(timespec="seconds"),
        "ended": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "resumed_from_step": trained.resumed_from_step,
        "threads": run.model.training.threads,
        "chance_uar": 1 / len(run.labels),
        "selected_by": run.model.training.select,
        "best_step": trained.selected.step,
        "best_epoch": trained.selected.epoch,
        "best_val_uar": trained.selected.val_uar,
        "epochs_run": trained.history[-1].epoch,
        "encoder": encoder,
        "seen_corpora": seen_corpora(run),
        "init_from": str(run.init_from) if run.init_from else None,
        "inputs": identity["inputs"],
        "seen_speakers": sorted(map(list, heard.trained | heard.selected)),
        "search": run.search,
        "tuned_on": [one.model_dump(mode="json") for one in run.model.tuned_on],
        "vote_classes": _vote_classes(run, manifests),
        **_remote_code(identity, encoder),
    }


def seen_corpora(run: Run) -> list[str] | None:
    """Corpora that the weights were pretrained on before anything here was trained; None where nobody has said."""
    said = [run.model.encoder.seen_corpora if isinstance(run.model.encoder, PretrainedEncoder) else ()]
    if run.init_from:
        said.append(run_folder.read_json(run.init_from / run_folder.RUN).get("seen_corpora"))
    return run_folder.seen_by_any(said)


def _remote_code(identity: Mapping[str, Any], encoder: Mapping[str, Any]) -> dict[str, Any]:
    """Which code of others ran: whose, and the SHA-256 of each file; {} for the most part, where none did."""
    inputs = identity["inputs"]
    if "encoder_code_sha256" not in inputs:
        return {}
    ran = {"files": inputs["encoder_code_sha256"], "classes": inputs["encoder_classes"]}
    return {"remote_code": {"name": encoder["name"], "revision": encoder["revision"], **ran}}


@functools.cache  # the modules that a process has loaded stay what they are
def _code() -> dict[str, Any]:
    """Version, and commit and dirty flag where the package lies in a git checkout or in an image that recorded them."""
    here = Path(__file__).resolve().parents[2]
    commit, dirty = recorded_source()
    if (here / ".git").exists() and shutil.which("git"):
        show, status = (
            subprocess.run(["git", "-C", str(here), *command], capture_output=True, text=True, check=False)
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain"))
        )
        if show.returncode == 0 and status.returncode == 0:
            commit, dirty = show.stdout.strip(), bool(status.stdout.strip())
    return {"version": __version__, "commit": commit, "dirty": dirty}


def environment(device: str, identity: Mapping[str, Any] | None = None) -> str:
    """Packages, Python, CPU and GPU of this machine, as text; and the code that came with the encoder of a run.

    Args:
        device: where it trained
        identity: of the run, what `run_identity` gives
    """
    import torch

    lines = [
        f"python {platform.python_version()}",
        f"platform {platform.platform()}",
        f"cpu {cpu_name()}",
        f"cores {os.cpu_count()}",
        f"device {device}",
    ]
    if device == "cuda":
        lines += [f"gpu {torch.cuda.get_device_name()}", f"cuda {torch.version.cuda}"]
    if os.environ.get("SER_IMAGE_DIGEST"):
        lines.append(f"image {os.environ['SER_IMAGE_DIGEST']}")
    code = ((identity or {}).get("inputs") or {}).get("encoder_code_sha256", {})
    lines += [f"remote_code:{name} {checksum}" for name, checksum in sorted(code.items())]
    return "\n".join([*lines, "", *_packages()]) + "\n"


@functools.cache
def _packages() -> list[str]:
    """Names and versions, sorted; read once per process, since it takes a quarter of a second."""
    return sorted({f"{item.name}=={item.version}" for item in importlib.metadata.distributions()}, key=str.lower)


def cpu_name() -> str:
    """The processor, as its maker calls it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def check_models(runs: Sequence[Run], folders: Folders, *, device: str, download: bool = True) -> list[str]:
    """Build every model once, so that a fault shows before the first run and not after it.

    Args:
        runs: one of each model is built
        folders: where encoders lie
        device: what the runs will train on
        download: fetch encoders that are not on this machine; else they are left unchecked

    Returns:
        Names of models left unchecked

    Raises:
        BadInput: naming the model and the fault
    """
    from ser_scripts.modeling.image_weights import find_weights
    from ser_scripts.modeling.places import resolve

    unchecked = []
    for run in {run.model.name: run for run in runs}.values():
        spec, named = run.model, f"{run.model_file}: " if run.model_file else ""
        if isinstance(spec, ModelSpec) and spec.training.precision == "fp16" and device == "cpu":
            raise BadInput(
                f"{named}model '{spec.name}': training.precision 'fp16' needs a GPU; use 'bf16' or 'fp32' on a CPU"
            )
        for tracker in spec.training.track if isinstance(spec, ModelSpec) else ():
            if importlib.util.find_spec(tracker) is None:
                raise BadInput(
                    f"{named}model '{spec.name}': training.track: '{tracker}' is not installed; "
                    f".venv/bin/pip install -e '.[{tracker}]', or leave it out"
                )
        if isinstance(spec.encoder, PretrainedEncoder) and not download:
            name = spec.encoder.model_path_or_name
            if isinstance(resolve(name, revision=spec.encoder.revision, models=folders.models), str):
                unchecked.append(spec.name)
                continue
        if isinstance(spec.encoder, SpectrogramEncoder) and spec.encoder.weights is not None and not download:
            away = find_weights(spec.encoder, models=folders.models) is None
            if away:
                unchecked.append(spec.name)
                continue
        augmentations = {
            other.augmentation.name: other.augmentation
            for other in runs
            if other.model.name == spec.name and other.augmentation is not None
        }
        try:
            if isinstance(spec, ClassicalSpec):
                from ser_scripts.runs.train_classical import check_classical

                check_classical(spec, folders, augmented=list(augmentations))
            elif spec.frozen:
                _check_frozen(spec, folders, augmentations)
            else:
                _check_network(run, folders, augmentations, device=device)
        except BadInput as error:
            raise BadInput(f"{named}model '{spec.name}': {error}") from None
    return unchecked


def _check_frozen(spec: ModelSpec, folders: Folders, augmentations: Mapping[str, AugmentationSpec]) -> None:
    """Find the encoder of a model with cached hidden states, without building it."""
    from ser_scripts.modeling.frozen import frozen_encoder

    if augmentations:
        raise BadInput(
            f"augmentation '{sorted(augmentations)[0]}' does not go with a frozen encoder, whose hidden states are "
            'those of clean clips; use "freeze": {"encoder": true}, which hears every clip anew'
        )
    assert isinstance(spec.encoder, PretrainedEncoder)
    encoder = frozen_encoder(spec.encoder, models=folders.models, remote_code=folders.remote_code)
    if isinstance(spec.layers.use, int) and encoder.num_layers is not None and spec.layers.use > encoder.num_layers:
        raise BadInput(
            f"layers.use: {encoder.identity['name']} has no layer {spec.layers.use}; valid: 0 to {encoder.num_layers}"
        )


def _check_network(run: Run, folders: Folders, augmentations: Mapping[str, AugmentationSpec], *, device: str) -> None:
    """Build a model whose encoder hears every clip."""
    from ser_scripts.augment.spec_augment import check_features
    from ser_scripts.modeling.encoders import build_encoder
    from ser_scripts.modeling.model import SerModel
    from ser_scripts.training.compiling import check_compiling

    encoder = build_encoder(run.network.encoder, models=folders.models, remote_code=folders.remote_code)
    if run.network.training.torch_compile is not None:
        check_compiling(encoder, device)
    model = SerModel(run.network, run.labels, encoder=encoder)
    if run.init_from is not None:
        _initialise_from(model, run.init_from, folders)
    for augmentation in augmentations.values():
        if augmentation.batch is not None and run.network.adversary is not None:
            raise BadInput(
                f"augmentation '{augmentation.name}' mixes clips of several speakers, which an adversary cannot tell "
                "apart; take 'batch' out of the one, or 'adversary' out of the other"
            )
        if augmentation.features:
            check_features(augmentation, encoder.features(np.zeros(16000, dtype=np.float32)).shape, run.model.name)


def check_targets(plan: Plan) -> None:
    """Refuse models that the corpora hold nothing to train on for: votes, ratings, speakers or genders.

    Raises:
        BadInput: naming model and corpus
    """
    with about(str(plan.experiment.file)):
        check_votes(plan)
        ratings.check_ratings(plan)
        for run in plan.runs:
            if (adversary := getattr(run.model, "adversary", None)) is not None:
                train = run.split.table[run.split.table["split"] == "train"]
                ratings.adversary_classes(adversary, train, model=run.model.name)


def check_votes(plan: Plan) -> None:
    """Refuse training on votes with corpora that have none.

    Raises:
        BadInput: naming model and corpus
    """
    for run in plan.runs:
        soft = isinstance(run.model, ModelSpec) and run.model.loss.targets == "votes"
        for corpus in run.train if soft else ():
            votes.check_votes(plan.manifests[corpus.name], corpus, run.task, run.model.name)


def vote_targets_of(run: Run, manifests: Mapping[str, Manifest]) -> dict[tuple[str, str], tuple[float, ...]]:
    """Shares of the votes of every training clip that has some, by corpus and path."""
    rows = run.split.table[run.split.table["split"] == "train"]
    return {
        (corpus.name, path): shares
        for corpus in run.train
        for path, shares in votes.vote_targets(
            manifests[corpus.name], corpus, run.task, list(rows.loc[rows["corpus"] == corpus.name, "path"])
        ).items()
    }


def _vote_classes(run: Run, manifests: dict[str, Manifest]) -> dict[str, dict[str, str]]:
    """Of each corpus of the run with votes: which label that raters chose counts for which class."""
    corpora = {corpus.name: corpus for corpus in (*run.experiment.test, *run.train)}
    return {
        name: votes.vote_classes(manifests[name], corpora[name], run.task)
        for name in sorted(set(run.split.table["corpus"]))
        if manifests[name].votes
    }


def check_augmentations(plan: Plan, allow_imports: Sequence[str]) -> None:
    """Build every augmentation of a plan once.

    Raises:
        BadInput: a class that is not allowed or does not exist, a wrong argument, a missing file
    """
    with about(str(plan.experiment.file)):
        for run in {run.augmentation.name: run for run in plan.runs if run.augmentation}.values():
            _augmentation_inputs(run, allow_imports)


def run_identity(
    run: Run, manifests: dict[str, Manifest], folders: Folders, *, allow_imports: Sequence[str]
) -> dict[str, Any]:
    """Everything a run's numbers depend on: its spec, and the checksums of the files that the spec only names."""
    from ser_scripts.modeling.frozen import frozen_encoder
    from ser_scripts.modeling.image_weights import locate_weights
    from ser_scripts.modeling.places import locate

    inputs: dict[str, Any] = {}
    if isinstance(run.model.encoder, SpectrogramEncoder) and run.model.encoder.weights is not None:
        inputs["encoder_sha256"] = locate_weights(run.model.encoder, models=folders.models)[1]["sha256"]
    if isinstance(run.model.encoder, PretrainedEncoder):
        _, encoder, code = locate(run.model.encoder, models=folders.models, remote_code=folders.remote_code)
        inputs["encoder_sha256"] = encoder["sha256"]
        if code is not None:
            inputs |= {"encoder_code_sha256": code.sums(), "encoder_classes": dict(code.classes)}
        if run.model.frozen:
            frozen = frozen_encoder(run.model.encoder, models=folders.models, remote_code=folders.remote_code)
            inputs["encoder_files"] = frozen.identity["files"]
    if isinstance(run.model, ClassicalSpec):
        from ser_scripts.runs.train_classical import input_identity

        inputs |= input_identity(run.model, folders)
    if run.init_from is not None:
        inputs["init_from"] = run_folder.read_json(run.init_from / run_folder.RUN)["spec_digest"]
    if run.augmentation is not None:
        inputs["augmentation_sha256"] = _augmentation_inputs(run, allow_imports)
    if files := chain_inputs(run.experiment.preprocess, run.base):
        inputs["preprocess_sha256"] = files
    if (rated := getattr(run.model, "ratings", None)) is not None:
        inputs["ratings_sha256"] = ratings.ratings_sha256(run, rated, manifests)
    shas = {name: manifests[name].sha256 for name in sorted(set(run.split.table["corpus"]))}
    return {**run.resolved_spec(), "manifest_sha256": shas, "inputs": inputs}


def _augmentation_inputs(run: Run, allow_imports: Sequence[str]) -> dict[str, str]:
    """Checksums of the files that an augmentation reads; building it also finds its faults before any training."""
    assert run.augmentation is not None
    return _inputs_of(run.augmentation.model_dump_json(by_alias=True), run.base, tuple(allow_imports))


@functools.cache
def _inputs_of(augmentation: str, base: Path, allow_imports: tuple[str, ...]) -> dict[str, str]:
    from ser_scripts.augment import Augmenter

    spec = AugmentationSpec.model_validate_json(augmentation)
    return Augmenter(spec, seed=0, allow_imports=allow_imports, base=base).input_sha256()
