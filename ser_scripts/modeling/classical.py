"""Classical classifiers: scikit-learn fits them, plain arrays keep them and predict.

What is saved are numbers, never pickled objects, which could run code. Every score, in the search and in the test,
comes from these arrays, so that a saved model answers exactly as the tested one; tests hold them against scikit-learn.

Decision values per class, from which a softmax makes probabilities:

- `linear_svm`: distance to the hyperplane of each class against the rest, in margins
- `rbf_svm`: votes of the pairwise machines, ties broken by their sums (scikit-learn's `decision_function_shape="ovr"`)
- `logistic_regression`: its logits
- `random_forest`: logarithm of the mean of the trees' class shares, at least half a tree's share
- `xgboost`: its margins

With two classes the first has 0 and the second the one value that there is. They are no probabilities but with logistic
regression, so that by default a temperature is fitted on clips that the model was not (Guo et al., "On calibration of
modern neural networks", ICML 2017).
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize
import scipy.special
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ser_eval.run_folder import read_json, write_json
from ser_scripts.errors import BadInput, Finding
from ser_scripts.modeling.weights import CONFIG, WEIGHTS
from ser_scripts.specs.base import parse
from ser_scripts.specs.classical import (
    ClassicalSpec,
    Classifier,
    LinearSvm,
    LogisticRegressionSpec,
    RandomForest,
    RbfSvm,
    XgBoost,
)

LABELS = "labels.json"
OURS = "sertain_classical"
"""The key of config.json that tells a classical model from a network."""
_TEMPERATURES = (-7.0, 7.0)
"""Logarithms between which the temperature is sought."""

Matrix = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Fitted:
    """Scaler and classifier as arrays."""

    kind: str
    arrays: Arrays
    converged: bool


def check_installed(spec: ClassicalSpec) -> None:
    """Refuse a classifier whose package is not installed.

    Raises:
        BadInput: naming the extra that brings it
    """
    if isinstance(spec.classifier, XgBoost):
        _xgboost()


def fit(
    setting: Classifier,
    values: Matrix,
    truth: NDArray[np.int64],
    *,
    class_weights: bool,
    seed: int,
    threads: int,
) -> Fitted:
    """Standardise the numbers with their mean and deviation, and fit a classifier.

    Args:
        setting: the classifier and its parameters
        values: (N, D)
        truth: class of each row, (N,)
        class_weights: weigh rows by the inverse frequency of their class
        seed: of what is drawn: bootstrap samples, order of coordinates
        threads: of trees; linear algebra obeys threadpoolctl

    Raises:
        Finding: all rows are of one class
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(truth)) < 2:
        raise Finding("all clips to fit a classifier on are of one class; choose a split with more speakers per side")
    scaler = StandardScaler().fit(values)
    scaled = scaler.transform(values)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        arrays = _fit(setting, scaled, truth, "balanced" if class_weights else None, seed, threads)
    converged = True
    for message in told:
        if issubclass(message.category, ConvergenceWarning):
            converged = False
        else:
            warnings.warn_explicit(message.message, message.category, message.filename, message.lineno)
    arrays |= {"scaler_mean": scaler.mean_, "scaler_scale": scaler.scale_}
    return Fitted(setting.kind, {name: np.ascontiguousarray(value) for name, value in arrays.items()}, converged)


def decide(fitted: Fitted, values: Matrix, num_labels: int) -> Matrix:
    """Decision values (N, D) -> (N, K); -inf for classes that were not among the clips fitted on."""
    arrays = fitted.arrays
    scaled = (np.asarray(values, dtype=np.float64) - arrays["scaler_mean"]) / arrays["scaler_scale"]
    known = _DECIDE[fitted.kind](arrays, scaled)
    if known.ndim == 1:
        known = np.stack([np.zeros_like(known), known], axis=1)
    out = np.full((len(scaled), num_labels), -np.inf)
    out[:, arrays["classes"]] = known
    return out


def fit_temperature(decisions: Matrix, truth: NDArray[np.int64]) -> float:
    """The number by which decision values are divided for the greatest likelihood of the true classes.

    Clips of classes that their model did not know do not count. 1 when none is left.

    Args:
        decisions: (N, K), of models that were not fitted on these clips
        truth: (N,)
    """
    rows = np.isfinite(decisions[np.arange(len(truth)), truth])
    if not rows.any():
        return 1.0
    kept, classes = decisions[rows], truth[rows]

    def loss(log_temperature: float) -> float:
        return nll(kept / np.exp(log_temperature), classes)

    found = scipy.optimize.minimize_scalar(loss, bounds=_TEMPERATURES, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def nll(decisions: Matrix, truth: NDArray[np.int64]) -> float:
    """Mean of -ln p(true class), with the softmax of decision values."""
    logs = scipy.special.log_softmax(decisions, axis=1)
    return float(-logs[np.arange(len(truth)), truth].mean())


@dataclass(frozen=True)
class ClassicalModel:
    """A fitted model, and the features that it needs."""

    spec: ClassicalSpec
    labels: tuple[str, ...]
    layer: int | None
    """Of the embeddings; None with other features."""
    setting: Classifier
    temperature: float
    fitted: Fitted
    features: dict[str, Any]
    """Identity of what computes the features."""

    def logits(self, values: Matrix) -> Matrix:
        """(N, D) -> (N, K)."""
        return decide(self.fitted, values, len(self.labels)) / self.temperature

    def save(self, folder: Path) -> None:
        """Write config.json, labels.json and model.safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        ours = {
            "spec": self.spec.model_dump(mode="json"),
            "layer": self.layer,
            "setting": self.setting.model_dump(mode="json"),
            "temperature": self.temperature,
            "converged": self.fitted.converged,
            "features": self.features,
        }
        write_json(folder / CONFIG, {OURS: ours})
        write_json(folder / LABELS, list(self.labels))
        save_file(self.fitted.arrays, folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path) -> ClassicalModel:
        """Read what `save` wrote.

        Raises:
            BadInput: a file is missing or damaged
        """
        for name in (CONFIG, LABELS, WEIGHTS):
            if not (folder / name).is_file():
                raise BadInput(f"{folder} holds no {name}; a classical model has {CONFIG}, {LABELS}, {WEIGHTS}")
        ours = read_json(folder / CONFIG)[OURS]
        spec = parse(ClassicalSpec, ours["spec"], source=str(folder / CONFIG), kind="saved model")
        setting = parse(type(spec.classifier), ours["setting"], source=str(folder / CONFIG), kind="saved model")
        try:
            arrays = load_file(folder / WEIGHTS)
        except SafetensorError as error:
            raise BadInput(f"{folder / WEIGHTS} is damaged: {error}") from None
        fitted = Fitted(spec.classifier.kind, arrays, ours["converged"])
        labels = tuple(read_json(folder / LABELS))
        return cls(spec, labels, ours["layer"], setting, ours["temperature"], fitted, ours["features"])


def is_classical(folder: Path) -> bool:
    """Whether a saved model is a classical one."""
    return (folder / CONFIG).is_file() and OURS in read_json(folder / CONFIG)


def _fit(
    setting: Classifier, scaled: Matrix, truth: NDArray[np.int64], class_weight: str | None, seed: int, threads: int
) -> Arrays:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC, LinearSVC

    if isinstance(setting, LinearSvm):
        linear = LinearSVC(
            C=setting.C, class_weight=class_weight, max_iter=setting.max_iterations, random_state=seed
        ).fit(scaled, truth)
        return _linear(linear)
    if isinstance(setting, LogisticRegressionSpec):
        logistic = LogisticRegression(C=setting.C, class_weight=class_weight, max_iter=setting.max_iterations)
        return _linear(logistic.fit(scaled, truth))
    if isinstance(setting, RbfSvm):
        machine = SVC(C=setting.C, gamma=setting.gamma, class_weight=class_weight, break_ties=len(np.unique(truth)) > 2)
        machine.fit(scaled, truth)
        return {
            "classes": machine.classes_,
            "support": machine.support_vectors_,
            "num_support": machine.n_support_.astype(np.int64),
            "dual": machine.dual_coef_,
            "intercept": machine.intercept_,
            "gamma": np.array([machine._gamma]),
        }
    if isinstance(setting, RandomForest):
        forest = RandomForestClassifier(
            n_estimators=setting.trees,
            max_depth=setting.max_depth,
            min_samples_leaf=setting.min_leaf,
            max_features=setting.max_features,
            class_weight=class_weight,
            random_state=seed,
            n_jobs=threads,
        ).fit(scaled, truth)
        return _forest(forest)
    return _fit_xgboost(setting, scaled, truth, class_weight, seed, threads)


def _linear(model: Any) -> Arrays:
    """Weights (rows, D) and intercepts; one row with two classes, else one per class."""
    return {"classes": model.classes_, "weights": model.coef_, "intercept": np.atleast_1d(model.intercept_)}


def _decide_linear(arrays: Arrays, scaled: Matrix) -> Matrix:
    values: Matrix = scaled @ arrays["weights"].T + arrays["intercept"]
    return values[:, 0] if values.shape[1] == 1 else values


def _decide_rbf(arrays: Arrays, scaled: Matrix) -> Matrix:
    """Pairwise decisions of libsvm's arrays, joined as scikit-learn joins them."""
    support, dual, gamma = arrays["support"], arrays["dual"], float(arrays["gamma"][0])
    squares = np.square(scaled).sum(axis=1)[:, None] + np.square(support).sum(axis=1) - 2 * scaled @ support.T
    kernel = np.exp(-gamma * np.maximum(squares, 0))  # (N, S)
    ends = np.cumsum(arrays["num_support"])
    parts = [slice(end - count, end) for end, count in zip(ends, arrays["num_support"], strict=True)]
    count = len(parts)
    if count == 2:  # scikit-learn turns the sign of a lone pair, in dual_coef_ and intercept_ alike
        return np.asarray(kernel @ dual[0] + arrays["intercept"][0])
    votes, sums = np.zeros((len(scaled), count)), np.zeros((len(scaled), count))
    pairs = [(one, other) for one in range(count) for other in range(one + 1, count)]
    for (one, other), intercept in zip(pairs, arrays["intercept"], strict=True):
        value = (
            kernel[:, parts[one]] @ dual[other - 1, parts[one]]
            + kernel[:, parts[other]] @ dual[one, parts[other]]
            + intercept
        )
        sums[:, one] += value
        sums[:, other] -= value
        votes[:, one] += value > 0
        votes[:, other] += value <= 0
    return np.asarray(votes + sums / (3 * (np.abs(sums) + 1)))


def _forest(forest: Any) -> Arrays:
    """Nodes of all trees in one table; children count from the first node of their tree."""
    trees = [one.tree_ for one in forest.estimators_]
    return {
        "classes": forest.classes_,
        "left": np.concatenate([tree.children_left for tree in trees]).astype(np.int64),
        "right": np.concatenate([tree.children_right for tree in trees]).astype(np.int64),
        "feature": np.concatenate([tree.feature for tree in trees]).astype(np.int64),
        "threshold": np.concatenate([tree.threshold for tree in trees]),
        "shares": np.concatenate([tree.value[:, 0, :] for tree in trees]),
        "starts": np.cumsum([0, *(tree.node_count for tree in trees[:-1])]).astype(np.int64),
    }


def _decide_forest(arrays: Arrays, scaled: Matrix) -> Matrix:
    total = np.zeros((len(scaled), arrays["shares"].shape[1]))
    numbers = scaled.astype(np.float32)  # as scikit-learn's trees see them
    rows = np.arange(len(scaled))
    for start in arrays["starts"]:
        node = np.zeros(len(scaled), dtype=np.int64)
        while True:
            left = arrays["left"][start + node]
            inner = left >= 0
            if not inner.any():
                break
            at = start + node
            goes_left = numbers[rows, np.maximum(arrays["feature"][at], 0)] <= arrays["threshold"][at]
            node = np.where(inner, np.where(goes_left, left, arrays["right"][at]), node)
        shares = arrays["shares"][start + node]
        total += shares / shares.sum(axis=1, keepdims=True)
    count = len(arrays["starts"])
    return np.asarray(np.log(np.maximum(total / count, 0.5 / count)))


def _xgboost() -> Any:
    try:
        return importlib.import_module("xgboost")
    except ModuleNotFoundError:
        raise BadInput(
            "classifier.kind 'xgboost' needs the package xgboost, which is not installed: "
            ".venv/bin/pip install -e '.[xgboost]', or take 'random_forest'"
        ) from None


def _fit_xgboost(
    setting: XgBoost, scaled: Matrix, truth: NDArray[np.int64], class_weight: str | None, seed: int, threads: int
) -> Arrays:
    from sklearn.utils.class_weight import compute_sample_weight

    xgboost = _xgboost()
    classes, index = np.unique(truth, return_inverse=True)
    weight = compute_sample_weight("balanced", truth) if class_weight else None
    objective = {"objective": "multi:softprob", "num_class": len(classes)}
    booster = xgboost.train(
        {
            **(objective if len(classes) > 2 else {"objective": "binary:logistic"}),
            "max_depth": setting.max_depth,
            "eta": setting.learning_rate,
            "subsample": setting.subsample,
            "colsample_bytree": setting.column_share,
            "lambda": setting.l2,
            "tree_method": "hist",
            "seed": seed,
            "nthread": threads,
        },
        xgboost.DMatrix(scaled, label=index, weight=weight, nthread=threads),
        num_boost_round=setting.rounds,
    )
    # xgboost's own JSON holds numbers only
    return {"classes": classes, "booster": np.frombuffer(bytes(booster.save_raw("json")), dtype=np.uint8)}


def _decide_xgboost(arrays: Arrays, scaled: Matrix) -> Matrix:
    xgboost = _xgboost()
    booster = xgboost.Booster(model_file=bytearray(arrays["booster"].tobytes()))
    return np.asarray(booster.predict(xgboost.DMatrix(scaled, nthread=1), output_margin=True), dtype=np.float64)


_DECIDE = {
    "linear_svm": _decide_linear,
    "logistic_regression": _decide_linear,
    "rbf_svm": _decide_rbf,
    "random_forest": _decide_forest,
    "xgboost": _decide_xgboost,
}


def words(setting: Classifier, names: Sequence[str]) -> str:
    """`C = 0.1`, for a line of progress."""
    return ", ".join(f"{name} = {getattr(setting, name)}" for name in names)
