"""Ratings: scores and intervals, losses, one common scale, what is refused."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_eval import metrics
from ser_eval.errors import MetricError
from ser_eval.ratings import mean_ccc, pearson, rating_baselines, rating_scores, rmse, speaker_interval
from ser_eval.shortcuts import Fold
from ser_scripts.corpora.csv_corpus import read_csv
from ser_scripts.errors import BadInput
from ser_scripts.manifest import Manifest
from ser_scripts.modeling.ratings import batch_ccc, ratings_loss
from ser_scripts.ratings import check_scale, clip_columns, clip_ratings, common
from ser_scripts.specs.base import parse
from ser_scripts.specs.model import ModelSpec
from ser_scripts.specs.ratings import RatingsSpec
from ser_scripts.specs.translate import translate_experiment, translate_model

GOLDEN = ([0.1, 0.4, 0.35, 0.8, 0.6], [0.2, 0.3, 0.5, 0.7, 0.9])
"""Means .45 and .52; squares 1.2925 / 5 - .2025 = .056 and 1.68 / 5 - .2704 = .0656; products 1.415 / 5 - .234 = .049.

CCC = 2 x .049 / (.056 + .0656 + .0049) = .098 / .1265; r = .049 / sqrt(.056 x .0656); MSE = (1.2925 - 2.83 + 1.68) / 5.
"""


def test_scores_by_hand() -> None:
    assert metrics.ccc(*GOLDEN) == pytest.approx(0.098 / 0.1265, abs=1e-12)
    assert pearson(*GOLDEN) == pytest.approx(0.049 / math.sqrt(0.056 * 0.0656), abs=1e-12)
    assert metrics.mse(*GOLDEN) == pytest.approx(0.0285, abs=1e-12)
    assert rmse(*GOLDEN) == pytest.approx(math.sqrt(0.0285), abs=1e-12)
    with pytest.raises(MetricError, match="constant"):
        pearson([1.0, 2.0], [0.3, 0.3])


def table(truth: list[float], predicted: list[float], actors: list[str] | None = None) -> pd.DataFrame:
    actors = actors or ["a"] * len(truth)
    return pd.DataFrame(
        {
            "corpus": "c", "path": [f"{i}.wav" for i in range(len(truth))], "actor": actors,
            "gender": ["female" if actor < "c" else "male" for actor in actors],
            "rating_valence": truth, "predicted_valence": predicted,
        }
    )  # fmt: skip


values = st.lists(st.tuples(st.floats(0, 1), st.floats(-0.5, 1.5)), min_size=2, max_size=40)


@given(values)
def test_scores_are_those_of_a_second_implementation(pairs: list[tuple[float, float]]) -> None:
    """numpy's own covariance and correlation (ddof 1 where it cancels) against the moments that the intervals use."""
    x, y = map(np.array, zip(*pairs, strict=True))
    scores = rating_scores(table(x.tolist(), y.tolist()))["valence"]
    assert scores["rmse"] == pytest.approx(np.linalg.norm(x - y) / math.sqrt(len(x)), abs=1e-9)
    if x.std() < 1e-4 or y.std() < 1e-4:
        return
    cov = np.cov(x, y, ddof=0)
    expected = 2 * cov[0, 1] / (cov[0, 0] + cov[1, 1] + (x.mean() - y.mean()) ** 2)
    assert scores["ccc"] == pytest.approx(expected, abs=1e-6)
    assert scores["ccc"] == pytest.approx(metrics.ccc(x, y), abs=1e-6)
    assert scores["pearson"] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-6)
    assert abs(scores["ccc"]) <= abs(scores["pearson"]) + 1e-9  # Lin 1989: CCC = r x bias correction


def test_clips_without_a_rating_count_nowhere_but_in_their_number() -> None:
    truth = [*GOLDEN[0], math.nan, math.nan]
    scores = rating_scores(table(truth, [*GOLDEN[1], 9.0, -9.0]))["valence"]
    assert (scores["n"], scores["n_unrated"], scores["n_speakers"]) == (5, 2, 1)
    assert scores["ccc"] == pytest.approx(0.098 / 0.1265)
    assert scores["bias"] == pytest.approx(0.07)
    none = rating_scores(table([math.nan], [0.5]))["valence"]
    assert (none["ccc"], none["undefined"]) == (None, "no clip has a rating of valence")
    constant = rating_scores(table([0.2, 0.8], [0.5, 0.5]))["valence"]
    assert (constant["ccc"], constant["pearson"], constant["undefined"]) == (0.0, None, "all predictions are the same")
    assert mean_ccc({"valence": scores, "arousal": none}) is None


def test_interval_over_speakers_by_hand_and_its_conditions() -> None:
    rng = np.random.default_rng(3)
    actors = [actor for actor in "abcdef" for _ in range(8)]
    x = rng.uniform(size=48)
    frame = table(x.tolist(), (x * 0.5 + rng.normal(0.2, 0.1, 48)).tolist(), actors)
    scores = rating_scores(frame)["valence"]
    deleted = [
        math.atanh(metrics.ccc(rest["rating_valence"], rest["predicted_valence"]))
        for actor in "abcdef"
        for rest in [frame[frame["actor"] != actor]]
    ]
    error = math.sqrt(5 / 6 * sum((one - np.mean(deleted)) ** 2 for one in deleted))
    centre, reach = math.atanh(scores["ccc"]), 2.5705818366147395 * error  # t(.975, 5)
    interval = scores["intervals"]["ccc"]
    assert interval["low"] == pytest.approx(math.tanh(centre - reach), abs=1e-9)
    assert interval["high"] == pytest.approx(math.tanh(centre + reach), abs=1e-9)
    assert -1 < interval["low"] < scores["ccc"] < interval["high"] < 1
    assert scores["intervals"]["rmse"]["low"] > 0
    assert scores["per_gender"]["female"]["n_speakers"] == 2
    unknown = rating_scores(frame.assign(actor=""))["valence"]
    assert unknown["intervals"]["ccc"] is None
    assert unknown["intervals_undefined"] == "speakers unknown"
    assert speaker_interval(np.array(list(scores["per_speaker"].values()))[:1], "ccc") is None


@pytest.mark.parametrize("num_speakers", [3, 8])
def test_intervals_hold_what_they_promise(num_speakers: int) -> None:
    """800 draws: 95 % of the intervals hold the CCC of all people, within three standard errors of the simulation."""
    rng = np.random.default_rng(num_speakers)

    def draw(speakers: int) -> np.ndarray[Any, Any]:
        x = 0.5 + rng.normal(0, 0.08, speakers)[:, None] + rng.normal(0, 0.15, (speakers, 15))
        slope = np.clip(rng.normal(0.6, 0.2, speakers), 0, 2)[:, None]
        y = 0.5 + rng.normal(0, 0.08, speakers)[:, None] + slope * (x - 0.5) + rng.normal(0, 0.1, (speakers, 15))
        return np.stack([np.full(speakers, 15.0), *(a.sum(1) for a in (x, y, x * x, y * y, x * y))], axis=1)

    n, sx, sy, sxx, syy, sxy = draw(100_000).sum(axis=0)
    truth = 2 * (sxy / n - sx * sy / n**2) / (sxx / n - (sx / n) ** 2 + syy / n - (sy / n) ** 2 + ((sx - sy) / n) ** 2)
    held = 0
    for _ in range(800):
        interval = speaker_interval(draw(num_speakers), "ccc")
        assert interval is not None
        held += interval["low"] <= truth <= interval["high"]
    assert abs(held / 800 - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 800) + 0.005


def test_baselines_of_ratings_need_no_ears() -> None:
    index = pd.MultiIndex.from_tuples([("c", f"{i}.wav") for i in range(8)], names=["corpus", "path"])
    level = np.array([-30.0, -20, -25, -10, -15, -12, -28, -18])
    clips = pd.DataFrame(
        {"duration_seconds": 1.0, "rms_db": level, "silence_share": 0.1,
         "rating_arousal": [repr(float(v)) for v in (level + 30) / 40]}, index=index,
    )  # fmt: skip
    split = pd.DataFrame(index.tolist(), columns=["corpus", "path"]).assign(split=["train"] * 5 + ["test"] * 3)
    test = split[5:].assign(rating_arousal=clips["rating_arousal"].to_numpy()[5:].astype(float), predicted_arousal=0.5)
    rows = rating_baselines([Fold(split, test)], clips, dimensions=["arousal"], source=Path("clips.csv"))
    found = {row["baseline"]: row for row in rows}
    assert found["duration_loudness"]["ccc"] == pytest.approx(1)  # arousal is loudness here
    assert found["training_mean"]["ccc"] == 0
    assert (found["training_mean"]["n_train"], found["training_mean"]["n_test"]) == (5, 3)
    none = clips.assign(rating_arousal="")
    assert rating_baselines([Fold(split, test)], none, dimensions=["arousal"], source=Path("clips.csv")) == []


def test_ccc_is_a_score_that_statistics_take(tmp_path: Path) -> None:
    from ser_analysis.table import stats_of_csv

    rng = np.random.default_rng(0)
    blocks = [f"{number:02d}" for number in range(12)]
    rows = [
        {"model": model, "split_sha256": block, "ccc_valence": base + rng.normal(0, 0.05)}
        for model, base in (("a", -0.1), ("b", 0.2))
        for block in blocks
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "results.csv", index=False)
    found = stats_of_csv(
        tmp_path / "results.csv", dv="ccc_valence", within=["model"], between=[], block="split_sha256",
        out=tmp_path / "stats",
    )  # fmt: skip
    assert '"dv": "ccc_valence"' in json.dumps(found.content, default=str)
    assert (tmp_path / "stats" / "stats.json").is_file()


# ---- losses ----


def spec(loss: str, **keys: Any) -> RatingsSpec:
    return RatingsSpec.model_validate({"dimensions": ["valence", "arousal"], "loss": loss, **keys})


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and ratings of five clips; valence is `GOLDEN`, arousal is rated in two clips."""
    nan = math.nan
    predicted = torch.tensor([GOLDEN[1], [0.5, 0.1, 0.9, 0.0, 0.3]], dtype=torch.float64).T.clone()
    ratings = torch.tensor([GOLDEN[0], [0.25, nan, nan, 0.5, nan]], dtype=torch.float64).T.clone()
    return predicted.requires_grad_(), ratings


def test_losses_by_hand() -> None:
    predicted, ratings = batch()
    arousal = metrics.ccc([0.25, 0.5], [0.5, 0.0])
    expected = ((1 - 0.098 / 0.1265) + (1 - arousal)) / 2
    assert ratings_loss(predicted, ratings, spec("ccc")).item() == pytest.approx(expected, abs=1e-6)
    errors = (0.25**2 + 0.5**2) / 2
    assert ratings_loss(predicted, ratings, spec("mse")).item() == pytest.approx((0.0285 + errors) / 2)
    rated = ~ratings.isnan()
    for beta in (0.1, 0.3):
        smooth = [
            torch.nn.functional.smooth_l1_loss(predicted[rated[:, d], d], ratings[rated[:, d], d], beta=beta).item()
            for d in (0, 1)
        ]
        found = ratings_loss(predicted, ratings, spec("smooth_l1", beta=beta)).item()
        assert found == pytest.approx(sum(smooth) / 2)
    default = ratings_loss(predicted, ratings, spec("smooth_l1")).item()
    assert default == ratings_loss(predicted, ratings, spec("smooth_l1", beta=0.1)).item()


@pytest.mark.parametrize("loss", ["ccc", "mse", "smooth_l1"])
def test_unrated_clips_have_no_gradient_and_an_update_shares_its_batches(loss: str) -> None:
    predicted, ratings = batch()
    value = ratings_loss(predicted, ratings, spec(loss))
    value.backward()
    assert predicted.grad is not None
    assert torch.isfinite(predicted.grad).all()
    assert (predicted.grad[ratings.isnan()] == 0).all()
    assert (predicted.grad[~ratings.isnan()] != 0).all()
    assert ratings_loss(predicted, ratings, spec(loss), num_items=20).item() == pytest.approx(value.item() / 4)
    # a batch without ratings, or for the CCC with one of them, is worth nothing and has finite gradients
    empty = torch.full_like(ratings, math.nan)
    empty[0, 0] = 0.3
    predicted.grad = None
    one = ratings_loss(predicted, empty, spec(loss))
    one.backward()
    assert torch.isfinite(predicted.grad).all()
    assert (one.item() == 0) == (loss == "ccc")


def test_gradients_are_those_of_finite_differences() -> None:
    predicted, ratings = batch()
    for loss in ("ccc", "mse", "smooth_l1"):
        assert torch.autograd.gradcheck(lambda one, loss=loss: ratings_loss(one, ratings, spec(loss)), [predicted])


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=20))
@settings(max_examples=60)
def test_the_ccc_of_a_batch_is_the_metric(pairs: list[tuple[float, float]]) -> None:
    x, y = (torch.tensor(side, dtype=torch.float64)[:, None] for side in zip(*pairs, strict=True))
    if max(x.std(), y.std()) < 0.01:
        return
    found = batch_ccc(y, x, torch.ones_like(x, dtype=torch.bool)).item()
    assert found == pytest.approx(metrics.ccc(x[:, 0].numpy(), y[:, 0].numpy()), abs=1e-3)


# ---- the data side ----


def written(tmp_path: Path, text: str) -> Path:
    for name in ("a.wav", "b.wav", "c.wav"):
        (tmp_path / name).touch()
    file = tmp_path / "clips.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_csv_ratings_are_read_with_their_scale_and_only_then(tmp_path: Path) -> None:
    text = "path,class_id,actor,gender,valence,arousal\na.wav,sad,1,f,1,5\nb.wav,sad,1,f,,2.5\nc.wav,sad,2,m,3,\n"
    file = written(tmp_path, text)
    rows = read_csv(file, (1, 5))[1]
    assert [(row.valence, row.arousal, row.dominance) for row in rows] == [
        (1.0, 5.0, None), (None, 2.5, None), (3.0, None, None),
    ]  # fmt: skip
    assert all(row.valence is None for row in read_csv(file)[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,class_id,valence\na.wav,sad,6\n", "line 2: valence is '6'; expected a number from 1 to 5"),
        ("path,class_id,valence\na.wav,sad,nan\n", "valence is 'nan'; expected a number from 1 to 5"),
        ("path,class_id,valence\na.wav,sad,high\n", "valence is 'high'; expected a number"),
        ("path,class_id\na.wav,sad\n", "'rating_scale' is given, but there is no column of valence, arousal"),
        ("path,class_id,valance\na.wav,sad,2\n", "no column of valence|did you mean 'valence'"),
        ("path,class_id,valence,activation\na.wav,sad,2,2\n", "did you mean 'arousal'"),
    ],
)
def test_bad_ratings_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_csv(written(tmp_path, text), (1, 5))


def manifest(scale: tuple[float, float] | None) -> Manifest:
    clips = pd.DataFrame({"path": ["a", "b", "c"], "valence": [1.0, 3.0, math.nan], "arousal": [5.0, 1.0, 2.0]})
    clips["dominance"] = math.nan
    none = pd.DataFrame(columns=["path", "reason"])
    return Manifest("c", Path(), clips, none, True, none, scale)


def test_the_common_scale_is_that_of_the_raters_not_of_the_ratings() -> None:
    one = manifest((1, 5))
    assert common(one, "valence").tolist()[:2] == [0.0, 0.5]
    found = clip_ratings(one, ["arousal", "valence"], ["c", "a"])
    assert found[0, 0] == 0.25
    assert np.isnan(found[0, 1])
    assert found[1].tolist() == [1.0, 0.0]
    assert common(manifest(None), "valence").isna().all()
    columns = clip_columns(one)
    assert columns["rating_valence"].tolist() == ["0.0", "0.5", ""]
    assert clip_columns(manifest(None)).empty


def test_a_rating_outside_the_scale_is_named() -> None:
    with pytest.raises(BadInput, match="corpus 'c': arousal of a is 5, outside the scale from 1 to 4"):
        check_scale(manifest((1, 4)), ["valence", "arousal"])
    check_scale(manifest((1, 5)), ["valence", "arousal", "dominance"])


def test_ratings_of_msp_podcast_on_the_common_scale(tmp_path: Path) -> None:
    from ser_scripts.manifest import survey
    from ser_scripts.specs.corpora import NamedCorpus

    root = tmp_path / "msppodcast"
    small = importlib.util.spec_from_file_location("mini", Path(__file__).parent / "miniatures" / "msppodcast.py")
    assert small is not None
    assert small.loader is not None
    module = importlib.util.module_from_spec(small)
    small.loader.exec_module(module)
    for number, path in enumerate(module.CLIPS):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).normal(0, 0.1, 8000).astype(np.float32)
        soundfile.write(root / path, noise, 16000)
    for path, text in module.TABLES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    spec = NamedCorpus(name="msppodcast", labels="attributes")
    one = survey(spec, data=tmp_path, cache=tmp_path / "cache", base=tmp_path, workers=1)
    assert one.rating_scale == (1.0, 7.0)
    path = "Audios/MSP-PODCAST_0001_0019.wav"  # raters did not agree on a class
    assert one.clips.set_index("path").loc[path, "class_id"] == "other"
    assert clip_ratings(one, ["valence", "arousal", "dominance"], [path])[0] == pytest.approx(
        [3.4 / 6, 2.2 / 6, 3.2 / 6]
    )


BASE = {"name": "m", "encoder": {"model_path_or_name": "x"}}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"training": {"select": "val_ccc"}}, "'training.select' is 'val_ccc', but the model predicts no ratings"),
        ({"training": {"early_stopping": {"metric": "val_ccc"}}}, "'training.early_stopping.metric' is 'val_ccc'"),
        ({"ratings": {"only": True}}, "'training.select' is 'val_uar', but the model predicts ratings only"),
        ({"ratings": {"only": True, "weight": 2}}, "'weight' has no effect with 'only'"),
        ({"ratings": {"dimensions": ["anger"]}}, "'valence', 'arousal' or 'dominance'"),
        ({"ratings": {"dimensions": []}}, "a list of at least 1"),
        ({"ratings": {"dimensions": ["valence", "valence"]}}, "stands there twice"),
        ({"ratings": {"beta": 0.2}}, "'beta' belongs to the loss 'smooth_l1'"),
        ({"ratings": {"loss": "rmse"}}, "'ccc', 'mse' or 'smooth_l1'"),
        (
            {"encoder": {"model_path_or_name": "x", "frozen": True}, "adversary": {"kind": "speaker"}},
            "adversary does not go with a frozen encoder, of which nothing is trained; leave it out, or take 'encoder",
        ),
        ({"adversary": {"kind": "age"}}, "'speaker' or 'gender'"),
        ({"adversary": {"kind": "gender"}, "freeze": {"encoder": True}}, "'adversary' has no effect with"),
    ],
)
def test_specs_refuse_what_makes_no_sense(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse(ModelSpec, {**BASE, **keys}, source="m.json", kind="model")


def test_a_scale_goes_from_low_to_high() -> None:
    from ser_scripts.specs.corpora import CsvCorpus

    content = {"kind": "csv", "name": "c", "path": "c.csv", "rating_scale": [5, 1]}
    with pytest.raises(BadInput, match="the lowest value comes first"):
        parse(CsvCorpus, content, source="e.json", kind="corpus")


# ---- files of the older system ----

OLDER_MODEL = {
    "model_path_or_name": "x", "is_regression": True, "output_column": ["arousal", "valence"], "pooling_mode": "mean",
}  # fmt: skip


def test_regression_of_the_older_system_is_translated(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(json.dumps(OLDER_MODEL))
    experiment = {
        "experiment_name": "old", "model_files": "old.json", "eval_metric": "ccc",
        "training_dataset": {"name": "t", "data_csv": "t.csv", "rating_scale": [1, 7]},
        "datasets": [{"name": "u", "eval_csv_path": "u"}],
    }  # fmt: skip
    source = str(tmp_path / "e.json")
    translated = translate_experiment(experiment, source)
    (model,) = translated.models.values()
    assert model["ratings"] == {"dimensions": ["arousal", "valence"], "loss": "mse", "only": True}
    assert model["training"]["select"] == model["training"]["early_stopping"]["metric"] == "val_ccc"
    assert translated.content["train"][0][0]["rating_scale"] == [1.0, 7.0]
    assert "rating_scale" not in translated.content["test"][0]
    del experiment["training_dataset"]["rating_scale"]  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match=r"training_dataset\.rating_scale: required"):
        translate_experiment(experiment, source)
    (tmp_path / "old.json").write_text(json.dumps({"model_path_or_name": "x", "pooling_mode": "mean"}))
    with pytest.raises(BadInput, match="eval_metric: 'ccc' belongs to regression"):
        translate_experiment(experiment, source)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"output_column": ["arousal", "class_id"]}, "output_column names 'class_id'"),
        ({"output_column": []}, "output_column names 'nothing'"),
        ({"is_regression": False}, "must be 'class_id'"),
        ({"skip_hp_search": False}, "with 'is_regression' set it to true"),
    ],
)
def test_what_the_older_regression_cannot_be(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        translate_model({**OLDER_MODEL, **keys}, "m.json")


# ---- batches and windows ----


def test_ratings_of_a_mix_are_mixed_and_windows_of_a_clip_averaged() -> None:
    from ser_scripts.augment.mixing import mix_targets
    from ser_scripts.training.loop import clip_means

    ratings = torch.tensor([[0.2, 0.4], [0.8, math.nan], [0.5, 0.5]])
    mixed = mix_targets(ratings, [1, 2, 2], [0.75, 0.5, 1.0])
    assert mixed[0, 0].item() == pytest.approx(0.75 * 0.2 + 0.25 * 0.8)
    assert mixed[:, 1].isnan().tolist() == [True, True, False]  # a partner without a rating leaves none
    means = clip_means(np.array([[0.0], [1.0], [0.5], [0.3]], dtype=np.float32), [0, 0, 1, 2])
    assert means[:, 0].tolist() == pytest.approx([0.5, 0.5, 0.3])


def test_history_keeps_its_further_columns_and_reads_older_files(tmp_path: Path) -> None:
    from dataclasses import replace

    from ser_eval.run_folder import HISTORY_COLUMNS
    from ser_scripts.specs.model import EarlyStoppingSpec
    from ser_scripts.training.history import Evaluation, read_history, select, should_stop, write_history

    row = Evaluation(1, 1.0, 1.5, 0.3, 1.4, 0.4, 0.4, 1e-3, 2.0)
    rows = [
        replace(row, step=n, further=(("val_ccc", ccc), ("val_rmse_valence", 0.1)))
        for n, ccc in enumerate((-0.1, 0.3, 0.2))
    ]
    write_history(tmp_path / "history.csv", rows)
    assert read_history(tmp_path / "history.csv") == rows
    assert (tmp_path / "history.csv").read_text().splitlines()[0] == ",".join(
        [*HISTORY_COLUMNS, "val_ccc", "val_rmse_valence"]
    )
    assert select(rows, "val_ccc") == 1
    assert should_stop(rows, EarlyStoppingSpec(metric="val_ccc", patience=1))
    write_history(tmp_path / "old.csv", [row])
    assert (tmp_path / "old.csv").read_text().splitlines()[0] == ",".join(HISTORY_COLUMNS)
    assert read_history(tmp_path / "old.csv") == [row]
