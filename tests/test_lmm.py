"""The mixed model against published answers of lme4, statsmodels, a dense likelihood, and identities."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_analysis.methods import lmm, rm_anova
from ser_analysis.scores import Scores, pivot
from ser_eval.errors import BadInput

DYESTUFF = "1545 1440 1440 1520 1580 1540 1555 1490 1560 1495 1595 1550 1605 1510 1560 1445 1440 1595 1465 1545 1595 \
1630 1515 1635 1625 1520 1455 1450 1480 1445"
"""Davies & Goldsmith (1972): six batches, five samples of each; lme4's first example."""
DYESTUFF2 = "7.298 3.846 2.434 9.566 7.990 5.220 6.556 0.608 11.788 -0.892 0.110 10.386 13.434 5.510 8.166 2.212 4.852 \
7.092 9.288 4.980 0.282 9.014 4.458 9.446 7.198 1.722 4.782 8.106 0.758 3.758"
"""Box & Tiao (1973), simulated: the batches vary less than chance would have it."""
MACHINES = """
52.0 52.8 53.1 51.8 52.8 53.1 60.0 60.2 58.4 51.1 52.3 50.3 50.9 51.8 51.4 46.4 44.8 49.2
62.1 62.6 64.0 59.7 60.0 59.0 68.6 65.8 69.7 63.2 62.8 62.2 64.8 65.0 65.4 43.7 44.2 43.0
67.5 67.2 66.9 61.5 61.7 62.3 70.8 70.6 71.0 64.1 66.2 64.0 72.1 72.0 71.1 62.0 61.4 60.5
"""
"""Milliken & Johnson (1992): three machines, six workers, three runs each."""


ROWS = [0, 3, 18, 36]


def numbers(text: str) -> np.ndarray:
    return np.array(text.split(), dtype=float)


def machines() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    machine, worker = np.repeat(np.arange(3), 18), np.tile(np.repeat(np.arange(6), 3), 3)
    x, _, _ = lmm.coded(["machine"], [list("ABC")], {"machine": machine})
    return numbers(MACHINES), x, {"worker:machine": worker * 3 + machine, "worker": worker}


def simulated(seed: int, *, missing: int = 0, blocks: int = 7, between: float = 1.0) -> Scores:
    """Three models at two places, with effects of block, block x model and block x place."""
    rng = np.random.default_rng(seed)
    block, model = between * rng.normal(size=(blocks, 1, 1)), rng.normal(size=(blocks, 3, 1))
    y = block + 0.8 * model + 0.5 * rng.normal(size=(blocks, 1, 2)) + rng.normal(size=(blocks, 3, 2))
    values = y.reshape(blocks, 6)
    values.ravel()[rng.choice(values.size, missing, replace=False)] = np.nan
    names = tuple(map(str, range(blocks)))
    levels = (("a", "b", "c"), ("in", "out"))
    return Scores("y", ("model", "test"), levels, names, values, where=("test",), block_name="seed")


def dense_deviance(y: np.ndarray, x: np.ndarray, zs: list[np.ndarray], variances: np.ndarray) -> float:
    """-2 restricted log likelihood, straight from its definition."""
    v = variances[-1] * np.eye(len(y)) + sum(s * z @ z.T for s, z in zip(variances, zs, strict=False))
    inverse = np.linalg.inv(v)
    xvx = x.T @ inverse @ x
    residual = y - x @ np.linalg.solve(xvx, x.T @ inverse @ y)
    logs = np.linalg.slogdet(v)[1] + np.linalg.slogdet(xvx)[1]
    return float((len(y) - x.shape[1]) * math.log(2 * math.pi) + logs + residual @ inverse @ residual)


def test_dyestuff_matches_lme4() -> None:
    batch = np.repeat(np.arange(6), 5)
    fit = lmm.fit(numbers(DYESTUFF), np.ones((30, 1)), {"batch": batch})
    assert fit.deviance == pytest.approx(319.6543, abs=5e-5)
    assert fit.variances == pytest.approx([1764.05, 2451.25], rel=1e-5)
    assert fit.beta[0] == pytest.approx(1527.5)
    assert math.sqrt(fit.covariance[0, 0]) == pytest.approx(19.38, abs=0.005)
    assert fit.df(np.ones(1)) == pytest.approx(5)
    assert lmm.fit(numbers(DYESTUFF), np.ones((30, 1)), {"batch": batch}, reml=False).deviance == pytest.approx(
        327.3271, abs=5e-5
    )


def test_a_variance_of_zero_is_found_and_named() -> None:
    fit = lmm.fit(numbers(DYESTUFF2), np.ones((30, 1)), {"batch": np.repeat(np.arange(6), 5)})
    assert fit.singular
    assert fit.variances[0] == 0
    assert fit.deviance == pytest.approx(161.8283, abs=5e-5)
    assert math.sqrt(fit.variances[1]) == pytest.approx(3.7157, abs=5e-5)
    assert math.sqrt(fit.covariance[0, 0]) == pytest.approx(0.6784, abs=5e-5)
    assert fit.df(np.ones(1)) == pytest.approx(29)  # the df of a plain mean


def test_machines_are_tested_against_the_workers_not_by_wald() -> None:
    """Pitfall 2: Wald's p is 1e-9, that of Satterthwaite and of Kenward-Roger 2.9e-4."""
    fit = lmm.fit(*machines())
    assert np.sqrt(fit.variances) == pytest.approx([3.7295, 4.7811, 0.9616], abs=1e-4)
    test = fit.f_test(np.eye(3)[1:])
    assert test["df1"] == 2
    assert test["df2"] == pytest.approx(10)
    assert test["F"] == pytest.approx(20.576, abs=0.01)
    assert test["p"] == pytest.approx(2.9e-4, abs=1e-5)
    from scipy.stats import chi2

    assert chi2.sf(2 * test["F"], 2) < 2e-9


def test_the_restricted_likelihood_depends_on_the_coding() -> None:
    """Pitfall 5: the same model in treatment coding, as lme4 has it by default."""
    y, x, groups = machines()
    treatment = np.column_stack([np.ones(54), np.repeat(np.eye(3), 18, axis=0)[:, 1:]])
    ours, theirs = lmm.fit(y, x, groups), lmm.fit(y, treatment, groups)
    assert theirs.deviance == pytest.approx(215.6876, abs=1e-3)
    assert ours.deviance != pytest.approx(theirs.deviance, abs=0.1)
    assert ours.variances == pytest.approx(theirs.variances, rel=1e-6)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_unbalanced_random_intercepts_match_statsmodels(seed: int) -> None:
    from statsmodels.regression.mixed_linear_model import MixedLM

    scores = simulated(seed, missing=9, blocks=8)
    table = lmm.design(scores)
    x, _, _ = table.fixed()
    block = table.codes["seed"]
    for reml in (True, False):
        ours = lmm.fit(table.y, x, {"seed": block}, reml=reml)
        theirs = MixedLM(table.y, x, groups=block).fit(reml=reml, method="lbfgs")
        assert ours.log_likelihood == pytest.approx(theirs.llf, abs=1e-5)
        assert ours.beta == pytest.approx(np.asarray(theirs.fe_params), abs=1e-4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), missing=st.integers(0, 8))
def test_no_variances_nearby_are_likelier(seed: int, missing: int) -> None:
    scores = simulated(seed, missing=missing)
    table = lmm.design(scores)
    x, _, _ = table.fixed()
    if np.linalg.matrix_rank(x) < x.shape[1]:
        return
    terms = lmm.terms_of(scores)["full"]
    fit = lmm.fit(table.y, x, {lmm.label(table, term): table.grouping(term) for term in terms})
    zs = [np.eye(int(codes.max()) + 1)[codes] for codes in map(table.grouping, terms)]
    best = dense_deviance(table.y, x, zs, fit.variances)
    assert fit.deviance == pytest.approx(best, abs=1e-6)
    rng = np.random.default_rng(seed)
    for size in (0.01, 0.1, 1.0):
        for _ in range(10):
            other = np.maximum(fit.variances * np.exp(size * rng.normal(size=4)), 0)
            other[:-1] += (fit.variances[:-1] == 0) * size * 0.1 * rng.random(3)
            assert dense_deviance(table.y, x, zs, other) >= best - 1e-6


def test_satterthwaite_is_the_curvature_of_the_deviance() -> None:
    """df from numerical derivatives of the dense likelihood, as lmerTest takes them, on unbalanced data."""
    scores = simulated(4, missing=6, blocks=9)
    table = lmm.design(scores)
    x, _, _ = table.fixed()
    terms = lmm.terms_of(scores)["splitplot"]
    fit = lmm.fit(table.y, x, {lmm.label(table, term): table.grouping(term) for term in terms})
    assert not fit.singular
    zs = [np.eye(int(codes.max()) + 1)[codes] for codes in map(table.grouping, terms)]

    def covariance(variances: np.ndarray) -> np.ndarray:
        v = variances[-1] * np.eye(len(table.y)) + sum(s * z @ z.T for s, z in zip(variances, zs, strict=False))
        return np.linalg.inv(x.T @ np.linalg.solve(v, x))

    steps = np.diag(1e-4 * fit.variances)
    hessian = np.empty((3, 3))
    for i, j in itertools.product(range(3), repeat=2):
        parts = [
            si * sj * dense_deviance(table.y, x, zs, fit.variances + si * steps[i] + sj * steps[j])
            for si, sj in itertools.product((1, -1), repeat=2)
        ]
        hessian[i, j] = sum(parts) / (4 * steps[i, i] * steps[j, j])
    spread = 2 * np.linalg.inv(hessian)
    for unit in np.eye(x.shape[1]):
        gradient = [
            unit @ (covariance(fit.variances + step) - covariance(fit.variances - step)) @ unit / (2 * step.max())
            for step in steps
        ]
        variance = unit @ covariance(fit.variances) @ unit
        assert fit.df(unit) == pytest.approx(2 * variance**2 / (np.array(gradient) @ spread @ gradient), rel=1e-3)


def test_a_balanced_model_with_every_interaction_is_the_repeated_measures_anova() -> None:
    rng = np.random.default_rng(5)
    y = rng.normal(size=(9, 1)) * 2 + rng.normal(size=(9, 4))
    scores = Scores("y", ("model",), (tuple("abcd"),), tuple(map(str, range(9))), y, block_name="seed")
    content, _ = lmm.run(scores, [("seed",)])
    ours, row = content["anova_type3_satterthwaite"][0], rm_anova.run(scores).iloc[0]
    assert (ours["F"], ours["df1"], ours["df2"]) == pytest.approx((row["F"], row["df1"], row["df2"]))
    assert ours["p"] == pytest.approx(row["p"], rel=1e-6)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.floats(-50, 50), scale=st.floats(0.01, 100))
def test_units_and_order_do_not_matter(seed: int, shift: float, scale: float) -> None:
    scores = simulated(seed, missing=3)
    rows = np.argwhere(~np.isnan(scores.values))
    frame = pd.DataFrame(
        [
            {"seed": f"s{b}", "model": "abc"[c // 2], "test": ("in", "out")[c % 2], "y": scores.values[b, c]}
            for b, c in rows
        ]
    )
    moved = frame.assign(y=frame["y"] * scale + shift).sample(frac=1, random_state=seed % 1000)
    told = []
    for part in (frame, moved):
        again = pivot(part, dv="y", factors=["model", "test"], block="seed", where=["test"])
        told.append(lmm.run(again, lmm.terms_of(again)["full"])[0])
    for one, other in zip(*(content["anova_type3_satterthwaite"] for content in told), strict=True):
        assert (one["F"], one["df2"]) == pytest.approx((other["F"], other["df2"]), rel=2e-3)
    assert told[0]["singular"] == told[1]["singular"]


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(0, 12), st.booleans())
def test_blocks_of_their_own_give_what_one_matrix_of_all_levels_gives(seed: int, missing: int, reml: bool) -> None:
    table = lmm.design(simulated(seed, missing=missing))
    groups = {lmm.label(table, term): table.grouping(term) for term in (("seed",), ("seed", "model"), ("seed", "test"))}
    x, _, _ = table.fixed()
    split = lmm._Model(table.y, x, groups, reml)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            lmm, "_parts", lambda z: (np.column_stack([0 * (q := np.arange(z.shape[1])), q]), (1, z.shape[1]))
        )
        whole = lmm._Model(table.y, x, groups, reml)
    assert (len(whole.zz), len(split.zz)) == (1, 7)
    for ratios in (np.array([0.5, 2.0, 0.1]), np.array([0.0, 1.0, 3.0])):
        ours, theirs = split.profiled(ratios), whole.profiled(ratios)
        assert ours[0] == pytest.approx(theirs[0], rel=1e-12)
        np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-8, atol=1e-9)
        a, b = split.told(ratios), whole.told(ratios)
        np.testing.assert_allclose(a.covariance, b.covariance, rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(a.slopes, b.slopes, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(a.of_variances, b.of_variances, rtol=1e-6, atol=1e-12)


def test_the_models_that_a_design_allows() -> None:
    scores = simulated(0)
    assert lmm.terms_of(scores) == {
        "block": [("seed",)],
        "splitplot": [("seed",), ("seed", "model")],
        "full": [("seed",), ("seed", "model"), ("seed", "test")],
    }
    alone = Scores("y", ("model",), (("a", "b"),), ("1", "2", "3"), np.ones((3, 2)), block_name="seed")
    assert list(lmm.terms_of(alone)) == ["block"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y, x, g: (y, x, {"row": np.arange(54)}), r"\(1\|row\) has 54 levels for 54 scores"),
        (lambda y, x, g: (y, x, {"one": np.zeros(54, dtype=int)}), r"\(1\|one\) has 1 levels"),
        (lambda y, x, g: (y, np.hstack([x, x[:, :1]]), g), "not all estimable"),
        (lambda y, x, g: (x @ np.arange(3.0), x, g), "do not vary around the means of their cells"),
        (lambda y, x, g: (g["worker"] * 1.0, x, {"worker": g["worker"]}), "nothing is left of the scores"),
        (lambda y, x, g: (y[ROWS], x[ROWS], {"worker": g["worker"][ROWS]}), "too few"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        lmm.fit(*change(*machines()))
