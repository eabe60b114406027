"""Ratings from the corpora to the model: one common scale, what is missing, and what is refused.

The scale of the model is [0, 1]: a corpus' rating r on its own scale from low to high becomes (r - low) / (high - low).
Nothing is filled in: a clip without a rating stays without.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ser_eval.run_folder import PREDICTED_PREFIX, RATING_PREFIX, SPLIT_SIDES
from ser_scripts import corpora
from ser_scripts.corpora import RATINGS
from ser_scripts.errors import BadInput
from ser_scripts.manifest import Manifest
from ser_scripts.specs.model import ModelSpec
from ser_scripts.specs.ratings import AdversarySpec, RatingsSpec

if TYPE_CHECKING:
    from ser_scripts.runs.plan import Plan, Run


def common(manifest: Manifest, name: str) -> pd.Series[float]:
    """Ratings of all clips of a corpus in [0, 1], in the order of its clips; NaN where there is none."""
    own = manifest.clips[name].astype(float)
    if manifest.rating_scale is None:
        return own * np.nan
    low, high = manifest.rating_scale
    return (own - low) / (high - low)


def clip_ratings(manifest: Manifest, dimensions: Sequence[str], paths: Sequence[str]) -> NDArray[np.float64]:
    """Ratings of some clips in [0, 1], (N, D); NaN where there is none."""
    table = pd.DataFrame({name: common(manifest, name).to_numpy() for name in dimensions}, index=manifest.clips["path"])
    return np.asarray(table.loc[list(paths)].to_numpy(dtype=np.float64))


def rating_columns(
    manifest: Manifest, dimensions: Sequence[str], paths: Sequence[str], rated: Sequence[NDArray[np.float32]]
) -> pd.DataFrame | None:
    """The further columns of a prediction table: `rating_<dimension>` and `predicted_<dimension>` of each dimension.

    Args:
        manifest: of the corpus tested
        dimensions: those that the model predicts, D
        paths: of the N clips, in the order of the predictions
        rated: one array (N, D); none for a model without ratings, of which this is None
    """
    if not dimensions:
        return None
    (predicted,) = rated
    truth = clip_ratings(manifest, dimensions, paths)
    columns = {}
    for number, name in enumerate(dimensions):
        columns[RATING_PREFIX + name] = truth[:, number]
        columns[PREDICTED_PREFIX + name] = predicted[:, number].astype(np.float64)
    return pd.DataFrame(columns)


def clip_columns(manifest: Manifest) -> pd.DataFrame:
    """The columns of clips.csv for a corpus with ratings, as text; empty where a clip has none."""
    if manifest.rating_scale is None:
        return pd.DataFrame(index=manifest.clips.index)
    columns = {}
    for name in RATINGS:
        values = common(manifest, name)
        columns[RATING_PREFIX + name] = values.map(repr).where(values.notna(), "")
    return pd.DataFrame(columns, index=manifest.clips.index)


def check_ratings(plan: Plan) -> None:
    """Refuse models with ratings where there is nothing to learn them from, or to choose by.

    Raises:
        BadInput: no training corpus has ratings, a rating lies outside its scale, a dimension that no clip of training
            has, fewer than two different ratings of it among the training or the validation clips, or a protocol that
            is compared by the CCC with a model that predicts no ratings
    """
    checked: set[str] = set()
    for run in plan.runs:
        model = run.model
        spec = model.ratings if isinstance(model, ModelSpec) else None
        if spec is None:
            if run.protocol is not None and run.protocol.metric == "ccc":
                raise BadInput(
                    f"model '{model.name}': protocol '{run.protocol.name}' is compared by the CCC of predicted "
                    'ratings; give the model "ratings"'
                )
            continue
        _check_corpora(run, spec, plan.manifests)
        for corpus in sorted(set(run.split.table["corpus"]) - checked):
            check_scale(plan.manifests[corpus], spec.dimensions)
            checked.add(corpus)
        _check_sides(run, spec, plan.manifests)


def _check_corpora(run: Run, spec: RatingsSpec, manifests: Mapping[str, Manifest]) -> None:
    trained = [manifests[name] for name in run.train_corpora]
    if any(manifest.rating_scale is not None for manifest in trained):
        return
    with_ratings = [name for name in corpora.names() if corpora.rating_scale(corpora.get(name)) is not None]
    raise BadInput(
        f"model '{run.model.name}': 'ratings' asks for {', '.join(spec.dimensions)}, but "
        f"{' and '.join(run.train_corpora)} {'has' if len(trained) == 1 else 'have'} no ratings. Corpora with ratings: "
        f"{', '.join(with_ratings)}; a CSV has columns of these names, and its scale stands in the experiment, e.g. "
        '"rating_scale": [1, 5]'
    )


def check_scale(manifest: Manifest, dimensions: Sequence[str]) -> None:
    """Refuse a corpus that has a rating outside its own scale.

    Raises:
        BadInput: naming the first clip
    """
    for name in dimensions:
        values = common(manifest, name)
        outside = np.flatnonzero((values < 0) | (values > 1))
        if len(outside):
            assert manifest.rating_scale is not None
            low, high = manifest.rating_scale
            clip = manifest.clips.iloc[outside[0]]
            more = f" ({len(outside)} clips in all)" if len(outside) > 1 else ""
            raise BadInput(
                f"corpus '{manifest.corpus}': {name} of {clip['path']} is {clip[name]:g}, outside the scale from "
                f"{low:g} to {high:g}{more}"
            )


def _check_sides(run: Run, spec: RatingsSpec, manifests: Mapping[str, Manifest]) -> None:
    rated = _ratings_of(run, spec.dimensions, manifests)
    for side in ("train", "validation"):
        values = rated[rated["split"] == side]
        for name in spec.dimensions:
            if values[name].nunique() > 1:
                continue
            what = f"seed {run.seed}" + (f", fold {run.split.fold}" if run.split.fold is not None else "")
            known = [name for name in RATINGS if _ratings_of(run, [name], manifests, ["train"])[name].notna().any()]
            if side == "train" and name not in known:
                where = " and ".join(run.train_corpora)
                raise BadInput(
                    f"model '{run.model.name}': ratings.dimensions: no training clip of {where} has a rating of {name} "
                    f"({what}); rated there: {', '.join(known) or 'nothing'}"
                )
            raise BadInput(
                f"model '{run.model.name}': ratings.dimensions: the {side} clips ({what}) have "
                f"{values[name].nunique()} different rating(s) of {name}; two or more are needed for a CCC"
            )


def _ratings_of(
    run: Run, dimensions: Sequence[str], manifests: Mapping[str, Manifest], sides: Sequence[str] = SPLIT_SIDES
) -> pd.DataFrame:
    """Columns corpus, path, split, and the dimensions in [0, 1], of the clips of some sides of a split."""
    table = run.split.table[run.split.table["split"].isin(sides)]
    parts = []
    for corpus, rows in table.groupby("corpus", sort=True):
        values = clip_ratings(manifests[str(corpus)], dimensions, rows["path"].tolist())
        parts.append(rows[["corpus", "path", "split"]].reset_index(drop=True).assign(
            **{name: values[:, number] for number, name in enumerate(dimensions)}
        ))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def targets(run: Run, spec: RatingsSpec, manifests: Mapping[str, Manifest]) -> dict[tuple[str, str], tuple[float, ...]]:
    """Ratings in [0, 1] of every clip of a run, NaN where there is none, by corpus and path."""
    table = _ratings_of(run, spec.dimensions, manifests)
    rows = table[list(spec.dimensions)].itertuples(index=False, name=None)
    return dict(zip(zip(table["corpus"], table["path"], strict=True), rows, strict=True))


def ratings_sha256(run: Run, spec: RatingsSpec, manifests: Mapping[str, Manifest]) -> str:
    """SHA-256 of the ratings in [0, 1] of all clips of a run: another rating, or another scale, is another run."""
    table = _ratings_of(run, spec.dimensions, manifests, sides=["train", "validation", "test"])
    text = table.drop(columns="split").sort_values(["corpus", "path"]).to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


def record(run: Run, spec: RatingsSpec | None, manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    """What run.json says of the ratings; {} for a model of classes alone."""
    if spec is None:
        return {}
    table = _ratings_of(run, spec.dimensions, manifests)
    rated = {
        side: {name: int(rows[name].notna().sum()) for name in spec.dimensions}
        for side, rows in table.groupby("split", sort=True)
        if side != "unused"
    }
    scales = {name: manifests[name].rating_scale for name in sorted(set(run.split.table["corpus"]))}
    return {
        "answers_classes": not spec.only,
        "ratings": {
            "dimensions": list(spec.dimensions),
            "scale": {name: list(scale) if scale else None for name, scale in scales.items()},
            "rated_clips": rated,
        },
    }


def adversary_classes(spec: AdversarySpec, train: pd.DataFrame, *, model: str) -> dict[tuple[str, str], int]:
    """What the adversary tells apart: (corpus, actor) of the training clips to the number of its class, or -1.

    Args:
        spec: the adversary
        train: rows of split.csv that train
        model: its name, for messages

    Raises:
        BadInput: training clips without a speaker, or fewer than two speakers or genders
    """
    speakers = sorted(set(zip(train["corpus"], train["actor"], train["gender"], strict=True)))
    if spec.kind == "gender":
        names = sorted({gender for *_, gender in speakers} & {"female", "male"})
        _need_two(names, "genders", model)
        return {(corpus, actor): names.index(gender) if gender in names else -1 for corpus, actor, gender in speakers}
    if unnamed := sorted({corpus for corpus, actor, _ in speakers if actor == ""}):
        raise BadInput(
            f"model '{model}': adversary.kind is 'speaker', but {', '.join(unnamed)} has training clips without a "
            "speaker; 'gender' needs none"
        )
    keys = sorted({(corpus, actor) for corpus, actor, _ in speakers})
    _need_two(keys, "speakers", model)
    return {key: number for number, key in enumerate(keys)}


def _need_two(found: Iterable[Any], what: str, model: str) -> None:
    if len(list(found)) < 2:
        raise BadInput(f"model '{model}': adversary.kind: the training clips have fewer than two known {what}")
