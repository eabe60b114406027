"""One run of a classical model: features from the cache, the grid searched, one model fitted, a whole run folder."""

from __future__ import annotations

import datetime
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ser_eval import run_folder
from ser_eval.metrics import present_uar_of_counts
from ser_scripts.audio.store import ClipStore
from ser_scripts.errors import BadInput, Finding
from ser_scripts.features import functionals
from ser_scripts.manifest import Manifest
from ser_scripts.modeling import classical
from ser_scripts.modeling.classical import ClassicalModel, Fitted, Matrix, decide, fit, fit_temperature, nll, words
from ser_scripts.modeling.frozen import FrozenEncoder, frozen_encoder
from ser_scripts.runs.conditions import Prepared, open_conditions, predict_conditions
from ser_scripts.runs.plan import Run
from ser_scripts.runs.progress import counter
from ser_scripts.runs.train_run import environment, finish, open_stores, prediction_table, run_record
from ser_scripts.settings import Folders
from ser_scripts.specs.base import parse
from ser_scripts.specs.classical import ClassicalSpec, Classifier, EmbeddingFeatures, FeaturesSpec
from ser_scripts.specs.model import ModelSpec
from ser_scripts.splits import write_split
from ser_scripts.training.history import Evaluation, Trained, write_history
from ser_scripts.training.probabilities import softmax
from ser_scripts.training.seeding import derive

_SAY_EVERY_SECONDS = 10.0
Rows = NDArray[np.int64]
Clip = tuple[str, str]
"""(corpus, path)"""


class Extractor:
    """What turns clips into the numbers of a classical model."""

    def __init__(self, spec: FeaturesSpec, folders: Folders, device: str, report: Callable[[str], None]) -> None:
        """Find the encoder or package that the features need.

        Raises:
            BadInput: it is not there
        """
        self.spec = spec
        self.folders, self.device, self.report = folders, device, report
        self.encoder: FrozenEncoder | None = None
        if isinstance(spec, EmbeddingFeatures):
            self.encoder = frozen_encoder(spec.encoder, models=folders.models, remote_code=folders.remote_code)
            self.identity: dict[str, Any] = self.encoder.identity
            self.sample_rate_hz = self.encoder.sample_rate_hz
            top = self.encoder.num_layers
            if isinstance(spec.layer, int) and top is not None and spec.layer > top:
                raise BadInput(f"features.layer: {self.identity['name']} has no layer {spec.layer}; valid: 0 to {top}")
        else:
            self.identity = functionals.identity(spec)
            self.sample_rate_hz = functionals.sample_rate_hz(spec)

    def table(self, stores: Mapping[str, ClipStore], clips: Sequence[Clip]) -> NDArray[Any]:
        """Features of clips, (N, L, D): L hidden states of an encoder, else one."""
        if isinstance(self.spec, EmbeddingFeatures):
            from ser_scripts.runs.train_frozen import embed_table

            assert self.encoder is not None
            found = embed_table(
                head_spec(self.spec), self.encoder, stores, clips, self.folders, device=self.device, report=self.report
            )
            return np.asarray(found.values)[[found.rows[clip] for clip in clips]]
        values = functionals.open_functionals(
            [stores[corpus][path] for corpus, path in clips],
            [f"{corpus}/{path}" for corpus, path in clips],
            self.spec,
            self.folders.cache,
            progress=counter(self.report, f"features {self.identity['name']}"),
        )
        return values[:, None, :]


def head_spec(features: EmbeddingFeatures) -> ModelSpec:
    """A model over frozen hidden states that reads the same embeddings; what the cache is asked with."""
    content = {
        "name": "features",
        "encoder": features.encoder.model_dump(mode="json"),
        "layers": {"use": "search"},
        "pooling": {"kind": features.pooling},
    }
    return parse(ModelSpec, content, source="features", kind="model")


class ClassicalPredictor:
    """A saved classical model and what computes its features."""

    def __init__(self, model: ClassicalModel, folders: Folders, device: str, report: Callable[[str], None]) -> None:
        """Find what the model needs.

        Raises:
            BadInput: not there, or not what the model was trained with
        """
        self.model = model
        self.extractor = Extractor(model.spec.features, folders, device, report)
        classical.check_installed(model.spec)
        if (now := _compared(self.extractor.identity)) != (then := _compared(model.features)):
            differing = ", ".join(key for key in sorted({*now, *then}) if now.get(key) != then.get(key))
            raise BadInput(
                f"model '{model.spec.name}': its features '{model.features['name']}' were made by something else than "
                f"is here (differing: {differing}: was {then}, is {now})"
            )
        self.labels = model.labels
        self.sample_rate_hz = self.extractor.sample_rate_hz

    def logits(self, corpus: str, store: ClipStore, paths: Sequence[str]) -> NDArray[Any]:
        """Logits of clips, (N, K); what the cache does not hold is computed."""
        table = self.extractor.table({corpus: store}, [(corpus, path) for path in paths])
        return self.model.logits(as_matrix(table, self.model.layer))


def _compared(identity: dict[str, Any]) -> dict[str, Any]:
    """What must be the same to predict: an encoder's weights, or settings and version of openSMILE."""
    if "sha256" in identity:
        return {key: identity[key] for key in ("sha256", "code_sha256") if key in identity}
    made_by = {name: version for name, version in identity["made_by"].items() if name == "opensmile"}
    return {"settings": identity["settings"], **made_by}


def as_matrix(table: NDArray[Any], layer: int | None) -> Matrix:
    """(N, L, D) -> (N, D) float64 of one layer; the only one when None."""
    return np.asarray(table[:, 0 if layer is None else layer], dtype=np.float64)


@dataclass(frozen=True)
class Candidate:
    """One setting of the grid with one layer, and how it did on clips that it was not fitted on."""

    setting: Classifier
    layer: int | None
    evaluation: Evaluation
    held_out: Matrix
    """Decision values of the clips that choose, (N, K)."""
    converged: bool


def search(
    spec: ClassicalSpec,
    table: NDArray[Any],
    truth: Rows,
    folds: Sequence[tuple[Rows, Rows]],
    *,
    num_labels: int,
    seed: int,
    report: Callable[[str], None],
) -> list[Candidate]:
    """Fit every setting of the grid on every fold, and score it on the clips that the fold leaves out.

    Args:
        spec: the model
        table: features, (N, L, D)
        truth: class of each clip, (N,)
        folds: (rows fitted on, rows that choose); a row chooses once
        num_labels: K
        seed: of what is drawn
        report: takes a line of progress

    Returns:
        one candidate per layer and setting, layers first; the UAR is over the classes that the choosing clips have, all
        folds together
    """
    settings = spec.settings()
    layers = _layers(spec, table)
    choosing = np.concatenate([held for _, held in folds])
    began = said = time.monotonic()
    found: list[Candidate] = []
    for layer in layers:
        values = as_matrix(table, layer)
        for setting in settings:
            clock = time.monotonic()
            parts, losses, hits, converged = [], [], [], True
            for fitted_on, held in folds:
                fitted = _fit(spec, setting, values[fitted_on], truth[fitted_on], seed)
                parts.append(decide(fitted, values[held], num_labels))
                own = decide(fitted, values[fitted_on], num_labels)
                losses.append(nll(own, truth[fitted_on]))
                hits.append(float((own.argmax(axis=1) == truth[fitted_on]).mean()))
                converged &= fitted.converged
            decisions = np.concatenate(parts)
            answers = decisions.argmax(axis=1)
            counts = np.zeros((num_labels, num_labels), dtype=np.int64)
            np.add.at(counts, (truth[choosing], answers), 1)
            number = len(found) + 1
            row = Evaluation(
                step=number,
                epoch=float(number),
                train_loss=float(np.mean(losses)),
                train_accuracy=float(np.mean(hits)),
                val_loss=_finite_nll(decisions, truth[choosing]),
                val_accuracy=float((answers == truth[choosing]).mean()),
                val_uar=present_uar_of_counts(counts),
                learning_rate=math.nan,
                seconds=round(time.monotonic() - clock, 3),
            )
            found.append(Candidate(setting, layer, row, decisions, converged))
            if time.monotonic() - said > _SAY_EVERY_SECONDS:
                said = time.monotonic()
                report(f"{number} of {len(layers) * len(settings)} settings tried in {said - began:.0f} s")
    return found


def best(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate with the highest UAR; of equal ones the first."""
    return max(candidates, key=lambda one: (one.evaluation.val_uar, -one.evaluation.step))


def inner_folds(groups: Sequence[str], folds: int | str) -> list[tuple[Rows, Rows]]:
    """Leave groups out: (positions fitted on, positions left out) of each fold.

    Args:
        groups: the group of each clip, (N,)
        folds: `speakers` leaves out one group at a time, in alphabetical order; a number deals them into so many folds

    Raises:
        Finding: fewer groups than folds, or one only
    """
    from sklearn.model_selection import GroupKFold

    names = sorted(set(groups))
    array = np.array(groups)
    if len(names) < 2 or (folds != "speakers" and len(names) < int(folds)):
        raise Finding(
            f"training.search 'inner_speakers' cannot make {'two' if folds == 'speakers' else folds} inner folds of "
            f"{len(names)} training speaker(s); lower 'inner_folds', or search on 'validation'"
        )
    if folds == "speakers":
        return [(np.flatnonzero(array != name), np.flatnonzero(array == name)) for name in names]
    dealt = GroupKFold(int(folds)).split(array, groups=array)
    return [(fitted.astype(np.int64), held.astype(np.int64)) for fitted, held in dealt]


def train_classical(
    run: Run,
    identity: dict[str, Any],
    manifests: dict[str, Manifest],
    prepared: Prepared,
    folders: Folders,
    *,
    device: str,
    report: Callable[[str], None],
) -> None:
    """Train one run to its end. The caller holds the run's lock and has checked what lies in its place."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    spec = run.model
    assert isinstance(spec, ClassicalSpec)
    began, clock = datetime.datetime.now(datetime.UTC), time.monotonic()
    final = folders.runs / run.folder
    partial = final.with_name(final.name + run_folder.PARTIAL_SUFFIX)
    if (partial / run_folder.RUN).is_file():  # killed between the last file and the rename
        finish(partial, final)
        return
    if spec.training.search == "inner_speakers" and run.split.speakers_unknown:
        raise BadInput(f"model '{spec.name}': training.search 'inner_speakers' needs to know who speaks")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed: features are kept, the rest is quick
    (partial / run_folder.PREDICTIONS).mkdir(parents=True)
    run_folder.write_json(partial / run_folder.SPEC, identity)
    write_split(run.split, partial)

    extractor = Extractor(spec.features, folders, device, report)
    used = run.split.table[run.split.table["split"] != "unused"].reset_index(drop=True)
    stores = open_stores(run, used["corpus"], manifests, extractor.sample_rate_hz, folders, report)
    table = extractor.table(stores, list(zip(used["corpus"], used["path"], strict=True)))
    index = {label: number for number, label in enumerate(run.labels)}
    truth = np.array([index.get(label, -1) for label in used["class_id"]], dtype=np.int64)
    fitted_on, folds = _folds(spec, used)
    seed = derive("classical", run.train_seed)
    with threadpool_limits(limits=spec.training.threads):
        candidates = search(spec, table, truth, folds, num_labels=len(run.labels), seed=seed, report=report)
        chosen = best(candidates)
        values = as_matrix(table, chosen.layer)
        fitted = _fit(spec, chosen.setting, values[fitted_on], truth[fitted_on], seed)
        temperature = 1.0
        if spec.training.calibration == "temperature":
            choosing = np.concatenate([held for _, held in folds])
            temperature = fit_temperature(chosen.held_out, truth[choosing])
        model = ClassicalModel(spec, run.labels, chosen.layer, chosen.setting, temperature, fitted, extractor.identity)
        for corpus in sorted(set(used.loc[used["split"] == "test", "corpus"])):
            tested = ((used["split"] == "test") & (used["corpus"] == corpus)).to_numpy()
            predictions = prediction_table(used[tested], softmax(model.logits(values[tested])), list(run.labels))
            run_folder.write_table(partial / run_folder.prediction_file(corpus), predictions)
        chosen_on = (used["split"] == "validation").to_numpy()
        if spec.training.fit_on == "train" and chosen_on.any():
            validation = prediction_table(used[chosen_on], softmax(model.logits(values[chosen_on])), list(run.labels))
            run_folder.write_table(partial / run_folder.VALIDATION, validation)
        degraded = open_conditions(run, run.experiment.conditions, prepared, folders, extractor.sample_rate_hz, report)
        predictor = ClassicalPredictor(model, folders, device, report)
        tested_under = predict_conditions(degraded, run, prepared, predictor, partial, device)

    history = [candidate.evaluation for candidate in candidates]
    write_history(partial / run_folder.HISTORY, history)
    run_folder.write_table(partial / run_folder.GRID, _grid_table(spec, candidates, chosen))
    if spec.training.save_model != "none":
        model.save(partial / run_folder.MODEL)
    run_folder.write_text(partial / run_folder.ENVIRONMENT, environment(device, identity))
    source = {"revision": None, "sha256": None, **extractor.identity}
    record = run_record(run, manifests, identity, Trained(history, chosen.evaluation, None), source, began)
    record |= {"conditions": tested_under, "device": device, "augmentation_inputs": {}}
    record |= {
        "layer": chosen.layer,
        "setting": chosen.setting.model_dump(mode="json"),
        "settings_tried": len(candidates),
        "temperature": temperature,
        "converged": fitted.converged,
        "not_converged": sum(not candidate.converged for candidate in candidates),
        "fitted_on": {"sides": spec.training.fit_on, "clips": len(fitted_on)},
    }
    if spec.training.fit_on == "train_and_validation":
        record["split_notes"] = [
            *record["split_notes"],
            f"{spec.name} is fitted on the train and the validation side together ({len(fitted_on)} clips)",
        ]
    record["preprocess_events"] = {
        corpus: stores[corpus].event_counts(list(used.loc[used["corpus"] == corpus, "path"])) for corpus in stores
    }
    if not fitted.converged:
        report(f"not converged within max_iterations: {words(chosen.setting, sorted(spec.grid))}")
    record["seconds"] = round(time.monotonic() - clock, 3)
    run_folder.write_json(partial / run_folder.RUN, record)
    finish(partial, final)


def _fit(spec: ClassicalSpec, setting: Classifier, values: Matrix, truth: Rows, seed: int) -> Fitted:
    return fit(setting, values, truth, class_weights=spec.class_weights, seed=seed, threads=spec.training.threads)


def _layers(spec: ClassicalSpec, table: NDArray[Any]) -> list[int | None]:
    if not isinstance(spec.features, EmbeddingFeatures):
        return [None]
    count = table.shape[1]
    if spec.features.layer == "search":
        return list(range(count))
    return [count - 1 if spec.features.layer == "last" else spec.features.layer]


def _folds(spec: ClassicalSpec, used: pd.DataFrame) -> tuple[Rows, list[tuple[Rows, Rows]]]:
    """The rows that the tested model is fitted on, and the folds that choose its setting."""
    train = np.flatnonzero(used["split"] == "train")
    validation = np.flatnonzero(used["split"] == "validation")
    both = np.sort(np.concatenate([train, validation]))
    fitted_on = both if spec.training.fit_on == "train_and_validation" else train
    if spec.training.search == "validation":
        return fitted_on, [(train, validation)]
    groups = (used["corpus"] + "/" + used["group"]).to_numpy()[fitted_on]
    inner = inner_folds([str(group) for group in groups], spec.training.inner_folds)
    return fitted_on, [(fitted_on[inside], fitted_on[held]) for inside, held in inner]


def _finite_nll(decisions: Matrix, truth: Rows) -> float:
    """NLL over the clips whose class the model knew."""
    known = np.isfinite(decisions[np.arange(len(truth)), truth])
    return nll(decisions[known], truth[known]) if known.any() else math.nan


def _grid_table(spec: ClassicalSpec, candidates: Sequence[Candidate], chosen: Candidate) -> pd.DataFrame:
    """What was tried, one row per setting; `step` as in history.csv."""
    keys = sorted(spec.grid)
    return pd.DataFrame(
        [
            {
                "step": one.evaluation.step,
                "layer": "" if one.layer is None else one.layer,
                **{key: str(getattr(one.setting, key)) for key in keys},
                "uar": one.evaluation.val_uar,
                "accuracy": one.evaluation.val_accuracy,
                "nll": one.evaluation.val_loss,
                "converged": int(one.converged),
                "chosen": int(one is chosen),
            }
            for one in candidates
        ]
    )


def check_classical(spec: ClassicalSpec, folders: Folders, *, augmented: Sequence[str]) -> None:
    """Find what a model needs, before any training.

    Raises:
        BadInput: a package or an encoder is not there, or the experiment augments
    """
    if augmented:
        raise BadInput(
            f"augmentation '{sorted(augmented)[0]}' does not go with a classical model, whose features are those of "
            "clean clips; give it an experiment of its own, or take the augmentation out"
        )
    classical.check_installed(spec)
    Extractor(spec.features, folders, "cpu", lambda text: None)


def input_identity(spec: ClassicalSpec, folders: Folders) -> dict[str, Any]:
    """What a run's numbers depend on besides its spec: weights, or the version of the extractor."""
    extractor = Extractor(spec.features, folders, "cpu", lambda text: None)
    if extractor.encoder is not None:
        return {"encoder_sha256": extractor.identity["sha256"], "encoder_files": extractor.identity["files"]}
    made_by: dict[str, Any] = extractor.identity["made_by"]
    return {"opensmile": made_by["opensmile"]} if "opensmile" in made_by else {}
