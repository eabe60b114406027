"""Linear mixed models by REML with Satterthwaite degrees of freedom: the analysis that uses every score there is.

Model: y = X b + sum over terms k of Z_k u_k + e, with u_k ~ N(0, s_k I) and e ~ N(0, s I), all independent; fixed
effects are the full factorial of the factors in deviation coding, random terms are intercepts such as `(1|block)` and
`(1|block:model)`. Assumes normal effects of equal variance and scores missing at random; nothing is imputed.
Alternatives: repeated-measures ANOVA (`rm_anova`, complete blocks only), sign-flip tests (`contrasts`).

The deviance is profiled over fixed effects and residual variance and minimised over the variance ratios (Bates et al.
2015); F tests follow Fai & Cornelius (1996) with Satterthwaite df from the curvature of the deviance, the derivatives
in closed form (Kuznetsova et al. 2017; Giesbrecht & Burns 1985). A variance of 0 is a solution of its own: the fit is
then `singular`, and the df are those of the model without the term.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ser_analysis.methods.marginal_means import Cells
from ser_analysis.scores import Array, Codes, Scores
from ser_eval.errors import BadInput

ITERATIONS = 100
STARTS = (1.0, 0.05, 20.0)
"""Variance ratios to begin with."""
LARGEST = 1e8
"""A variance ratio that comes near to it means that the residual variance is 0."""
SMALL = 1e-9
"""A variance ratio beneath is tried at 0."""


@dataclass(frozen=True)
class Fit:
    """A fitted model; variances in the order of `groups`, the residual last."""

    groups: tuple[str, ...]
    n: int
    reml: bool
    beta: Array
    """(p,)"""
    covariance: Array
    """(p, p) of `beta`"""
    variances: Array
    """(terms + 1,)"""
    deviance: float
    """-2 log likelihood, restricted when `reml`."""
    slopes: Array
    """(terms + 1, p, p): derivative of `covariance` with respect to each variance."""
    of_variances: Array
    """(terms + 1, terms + 1): asymptotic covariance of the variances; 0 for those at the boundary."""

    @property
    def singular(self) -> bool:
        """Whether a variance is 0."""
        return bool((self.variances[:-1] == 0).any())

    @property
    def log_likelihood(self) -> float:
        """Restricted when `reml`."""
        return -self.deviance / 2

    def df(self, contrast: Array) -> float:
        """Satterthwaite df of one contrast of the fixed effects, shape (p,)."""
        variance = float(contrast @ self.covariance @ contrast)
        gradient = np.array([contrast @ slope @ contrast for slope in self.slopes])
        spread = float(gradient @ self.of_variances @ gradient)
        return 2 * variance**2 / spread if spread > 0 else math.inf

    def f_test(self, contrasts: Array) -> dict[str, float | int]:
        """Joint F test of contrasts of shape (rows, p): df1, df2, F, p."""
        from scipy.stats import f as f_distribution

        values, vectors = np.linalg.eigh(contrasts @ self.covariance @ contrasts.T)
        keep = values > values.max() * 1e-8
        rows = vectors[:, keep].T @ contrasts
        parts = values[keep]
        f = float(((rows @ self.beta) ** 2 / parts).mean())
        df1, df2 = len(parts), _joint_df([self.df(row) for row in rows])
        return {"df1": df1, "df2": df2, "F": f, "p": float(f_distribution.sf(f, df1, df2))}


def _joint_df(single: Sequence[float]) -> float:
    """The df of an F from those of its independent t's (Fai & Cornelius 1996)."""
    if max(single) - min(single) < 1e-6 * min(single) or math.isinf(min(single)):
        return float(np.mean(single))
    if min(single) <= 2:
        return 2.0
    expected = sum(1.0 if math.isinf(df) else df / (df - 2) for df in single)
    return 2 * expected / (expected - len(single))


def fit(y: Array, x: Array, groups: Mapping[str, Codes], *, reml: bool = True) -> Fit:
    """Fit y (n,) on fixed effects x (n, p) and a random intercept per level of each of `groups`, codes of shape (n,).

    Raises:
        BadInput: x has dependent columns or as many as rows, a group has one level or as many as rows, or nothing is
            left of the scores beside the fixed effects and the random terms
    """
    n, p = x.shape
    if np.linalg.matrix_rank(x) < p:
        raise BadInput("the mixed model's fixed effects are not all estimable: a cell of the factors holds no score")
    sizes = {}
    for name, codes in groups.items():
        _, counts = np.unique(codes, return_counts=True)
        sizes[name] = len(counts)
        if len(counts) < 2 or len(counts) >= n:
            raise BadInput(f"mixed model: (1|{name}) has {len(counts)} levels for {n} scores; it needs 2 to {n - 1}")
    if n - p < len(groups) + 1:
        raise BadInput(f"mixed model: {n} scores are too few for {p} means and {len(groups) + 1} variances")
    model = _Model(y, x, groups, reml)
    if model.total <= 1e-20 * float((y**2).sum()):
        raise BadInput("mixed model: the scores do not vary around the means of their cells")
    return model.solve()


class _Model:
    """Cross-products of one model; all steps work on them, so that the number of rows does not matter.

    Levels of random terms that share rows, directly or through others, are one part of the model; parts share no row,
    so that every matrix over the levels is one small matrix per part. Where each random term holds the block, a block
    is a part. Parts are padded to one size by levels without rows, which change nothing.
    """

    def __init__(self, y: Array, x: Array, groups: Mapping[str, Codes], reml: bool) -> None:
        from scipy import sparse

        self.names, self.reml = tuple(groups), reml
        self.n, self.p = x.shape
        z = sparse.hstack([indicator(codes) for codes in groups.values()], format="csr")
        terms = np.repeat(np.arange(len(groups)), [int(codes.max()) + 1 for codes in groups.values()])
        places, size = _parts(z)
        # An orthonormal basis of x keeps the digits; the fit is told in terms of x again.
        self.basis, self.upper = np.linalg.qr(x)
        zz = (z.T @ z).tocoo()
        flat = places[:, 0] * size[1] + places[:, 1]
        self.zz = np.zeros((*size, size[1]))
        self.zz[places[zz.row, 0], places[zz.row, 1], places[zz.col, 1]] = zz.data
        self.zx, self.zy = np.zeros((math.prod(size), self.p)), np.zeros(math.prod(size))
        self.zx[flat], self.zy[flat] = z.T @ self.basis, z.T @ (y - y.mean())
        self.terms = np.full(math.prod(size), -1)
        self.terms[flat] = terms
        self.xy, self.yy = self.basis.T @ (y - y.mean()), float(((y - y.mean()) ** 2).sum())
        self.total = self.yy - float(self.xy @ self.xy)
        """Sum of squares beside the fixed effects."""
        self.shift = np.linalg.solve(self.upper, self.basis.T @ np.full(self.n, y.mean()))

    def rotate(self, ratios: Array) -> tuple[Array, Array, Array, Array, Array, float, float]:
        """Z'V-Z, Z'V-X, Z'V-y, X'V-X, X'V-y, y'V-y and log |V| at V = I + sum ratio_k Z_k Z_k'.

        The first is (parts, levels, levels); the next two have the levels of all parts one after the other.
        """
        parts, size = self.zz.shape[:2]
        scale = np.append(np.sqrt(ratios), 0.0)[self.terms].reshape(parts, size)
        factor = np.linalg.cholesky(scale[:, :, None] * self.zz * scale[:, None, :] + np.eye(size))
        stack = np.concatenate(
            [self.zz, self.zx.reshape(parts, size, -1), self.zy.reshape(parts, size, 1)], axis=2
        )  # fmt: skip
        half = _lower_solve(factor, scale[:, :, None] * stack)
        hz, hx, hy = half[:, :, :size], half[:, :, size:-1].reshape(-1, self.p), half[:, :, -1]
        return (
            self.zz - hz.transpose(0, 2, 1) @ hz,
            self.zx - (hz.transpose(0, 2, 1) @ half[:, :, size:-1]).reshape(-1, self.p),
            self.zy - (hz.transpose(0, 2, 1) @ hy[:, :, None]).reshape(-1),
            np.eye(self.p) - hx.T @ hx,
            self.xy - hx.T @ hy.reshape(-1),
            self.yy - float(hy.reshape(-1) @ hy.reshape(-1)),
            2 * float(np.log(np.diagonal(factor, axis1=1, axis2=2)).sum()),
        )

    def per_term(self, levels: Array) -> Array:
        """Sums of (levels,) over the levels of each random term."""
        sums = np.bincount(self.terms + 1, weights=levels, minlength=len(self.names) + 1)[1:]
        return np.asarray(sums, dtype=np.float64)

    def profiled(self, ratios: Array) -> tuple[float, Array]:
        """The deviance profiled over fixed effects and residual variance, and its slopes along the ratios."""
        zvz, zvx, zvy, xvx, xvy, yvy, log_v = self.rotate(ratios)
        solved = np.linalg.solve(xvx, np.column_stack([xvy, zvx.T]))
        beta = solved[:, 0]
        squares = max(yvy - float(xvy @ beta), 1e-300)
        df = self.n - self.p if self.reml else self.n
        deviance = df * (math.log(2 * math.pi * squares / df) + 1) + log_v
        diagonal = np.diagonal(zvz, axis1=1, axis2=2).reshape(-1)
        if self.reml:
            # |X'V-X| in terms of x, not of its basis, as every other program tells it.
            deviance += float(np.linalg.slogdet(xvx)[1]) + 2 * float(np.log(np.abs(np.diag(self.upper))).sum())
            diagonal = diagonal - (zvx * solved[:, 1:].T).sum(axis=1)
        residual = zvy - zvx @ beta
        return deviance, self.per_term(diagonal) - df * self.per_term(residual**2) / squares

    def solve(self) -> Fit:
        from scipy.optimize import minimize

        def along_roots(roots: Array) -> tuple[float, Array]:
            value, slopes = self.profiled(roots**2)
            return value, 2 * roots * slopes

        best: tuple[float, Array] | None = None
        for start in STARTS:
            found = minimize(
                along_roots,
                np.sqrt(self._climb(np.full(len(self.names), start))),
                jac=True,
                method="L-BFGS-B",
                bounds=[(0, math.sqrt(LARGEST))] * len(self.names),
                options={"maxiter": 500, "ftol": 1e-14, "gtol": 1e-7},
            )
            ratios = self._settle(np.asarray(found.x) ** 2)
            value = self.profiled(ratios)[0]
            if best is None or value < best[0] - 1e-9:
                best = value, ratios
            if (ratios > 0).all():
                break  # the other starts guard against a boundary that the first ran into
        assert best is not None
        if best[1].max() > LARGEST / 10:
            raise BadInput("mixed model: nothing is left of the scores beside the fixed effects and the random terms")
        return self.told(best[1])

    def _climb(self, ratios: Array) -> Array:
        """A few steps of the monotone multiplicative update (Zhou et al. 2019), to come near from anywhere."""
        for _ in range(8):
            zvz, zvx, zvy, xvx, xvy, yvy, _ = self.rotate(ratios)
            solved = np.linalg.solve(xvx, np.column_stack([xvy, zvx.T]))
            sigma2 = max(yvy - float(xvy @ solved[:, 0]), 1e-300) / (self.n - self.p)
            residual = zvy - zvx @ solved[:, 0]
            diagonal = np.diagonal(zvz, axis1=1, axis2=2).reshape(-1) - (zvx * solved[:, 1:].T).sum(axis=1)
            gain = self.per_term(residual**2) / sigma2 / np.maximum(self.per_term(diagonal), 1e-300)
            ratios = np.clip(ratios * np.sqrt(gain), 1e-8, LARGEST)
        return ratios

    def _settle(self, ratios: Array) -> Array:
        """Newton steps on the free ratios, and every ratio that is better at 0 set to it."""
        ratios = np.where(ratios < SMALL, 0.0, ratios)
        for _ in range(ITERATIONS):
            value, slopes = self.profiled(ratios)
            free = (ratios > 0) | (slopes < -1e-7)
            if not free.any():
                break
            moved = False
            for step in (self._newton(ratios, free), -slopes * free * np.maximum(ratios, 1e-4) / np.abs(slopes).max()):
                for shrink in (1.0, 0.5, 0.1, 0.01):
                    trial = np.clip(ratios + shrink * step, 0.0, LARGEST)
                    if self.profiled(trial)[0] < value - 1e-12:
                        moved, new = True, trial
                        break
                if moved:
                    break
            if not moved or np.allclose(new, ratios, rtol=1e-10, atol=0):
                break
            ratios = new
        for index in np.flatnonzero(ratios):
            without = ratios.copy()
            without[index] = 0.0
            if self.profiled(without)[0] <= self.profiled(ratios)[0] + 1e-9:
                ratios = without
        return ratios

    def _newton(self, ratios: Array, free: npt.NDArray[np.bool_]) -> Array:
        """The Newton step along the free ratios, the curvature from differences of the exact slopes."""
        index = np.flatnonzero(free)
        curvature = np.empty((len(index), len(index)))
        for row, k in enumerate(index):
            h = 1e-5 * max(ratios[k], 1e-3)
            up, down = ratios.copy(), ratios.copy()
            up[k] += h
            down[k] = max(down[k] - h, 0.0)
            curvature[row] = (self.profiled(up)[1][index] - self.profiled(down)[1][index]) / (up[k] - down[k])
        curvature = (curvature + curvature.T) / 2
        values, vectors = np.linalg.eigh(curvature)
        values = np.maximum(np.abs(values), 1e-12 * max(float(np.abs(values).max()), 1e-300))
        step = np.zeros(len(ratios))
        step[index] = -vectors @ ((vectors.T @ self.profiled(ratios)[1][index]) / values)
        return step

    def told(self, ratios: Array) -> Fit:
        """Everything about the solution: V here is relative to the residual variance, P = V- - V-X(X'V-X)-X'V-."""
        zvz, zvx, zvy, xvx, xvy, yvy, _ = self.rotate(ratios)
        inverse = np.linalg.inv(xvx)
        beta = inverse @ xvy
        squares = yvy - float(xvy @ beta)
        sigma2 = squares / (self.n - self.p if self.reml else self.n)
        back = np.linalg.inv(self.upper)
        covariance = sigma2 * back @ inverse @ back.T

        r, k = zvy - zvx @ beta, len(self.names)
        # G_k = Z_k Z_k' and G_residual = I = V - sum ratio_k G_k, by which every trace and square follows from Z'PZ,
        # Z'PZ being Z'V-Z (a matrix per part) less a product of rank p, whose sums need matrices of (p, p) only.
        of = [np.where(self.terms == term, 1.0, 0.0) for term in range(k)]
        own = [zvx * flags[:, None] for flags in of]
        inner = [part.T @ part for part in own]
        trace = self.per_term(np.diagonal(zvz, axis1=1, axis2=2).reshape(-1) - (zvx @ inverse * zvx).sum(axis=1))
        square = self.per_term(r**2)
        traces, squares_of = np.empty((k + 1, k + 1)), np.empty((k + 1, k + 1))
        for i, j in itertools.product(range(k), repeat=2):
            across = zvz * of[i].reshape(zvz.shape[0], -1, 1) * of[j].reshape(zvz.shape[0], 1, -1)
            reached = (across @ own[j].reshape(*zvz.shape[:2], -1)).reshape(-1, self.p)
            traces[i, j] = (
                (across**2).sum()
                - 2 * np.trace(inverse @ (own[i].T @ reached))
                + np.trace(inverse @ inner[i] @ inverse @ inner[j])
            )
            heard = (across @ r.reshape(*zvz.shape[:2], 1)).reshape(-1)
            squares_of[i, j] = r @ heard - (r @ own[i]) @ inverse @ (own[j].T @ r)
        traces[:k, k] = traces[k, :k] = trace - traces[:k, :k] @ ratios
        squares_of[:k, k] = squares_of[k, :k] = square - squares_of[:k, :k] @ ratios
        traces[k, k] = (self.n - self.p - trace @ ratios) - traces[k, :k] @ ratios
        squares_of[k, k] = (squares - square @ ratios) - squares_of[k, :k] @ ratios
        hessian = -traces / sigma2**2 + 2 * squares_of / sigma2**3

        slopes = np.empty((k + 1, self.p, self.p))
        for i, part in enumerate(inner):
            slopes[i] = inverse @ part @ inverse
        slopes[k] = inverse - np.tensordot(ratios, slopes[:k], axes=1)
        free = np.append(ratios > 0, True)
        of_variances = np.zeros((k + 1, k + 1))
        of_variances[np.ix_(free, free)] = 2 * np.linalg.pinv(hessian[np.ix_(free, free)], hermitian=True)
        return Fit(
            groups=self.names,
            n=self.n,
            reml=self.reml,
            beta=back @ beta + self.shift,
            covariance=covariance,
            variances=np.append(ratios, 1.0) * sigma2,
            deviance=self.profiled(ratios)[0],
            slopes=np.array([back @ slope @ back.T for slope in slopes]),
            of_variances=of_variances,
        )


def indicator(codes: Codes) -> Any:
    """A sparse matrix with a column per level, 1 where a row has it."""
    from scipy import sparse

    n = len(codes)
    return sparse.csr_array((np.ones(n), (np.arange(n), codes)), shape=(n, int(codes.max()) + 1))


def _parts(z: Any) -> tuple[Codes, tuple[int, int]]:
    """The part of each column of z and its place in it, (columns, 2); and how many parts of how many places."""
    from scipy.sparse.csgraph import connected_components

    q = z.shape[1]
    count, part = connected_components(z.T @ z, directed=False)
    sizes = np.bincount(part)
    if count * int(sizes.max()) ** 2 > q**2:  # one big part among many small: padding would cost more than it saves
        return np.column_stack([np.zeros(q, dtype=np.int64), np.arange(q)]), (1, q)
    order = np.argsort(part, kind="stable")
    place = np.empty(q, dtype=np.int64)
    place[order] = np.arange(q) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.column_stack([part.astype(np.int64), place]), (int(count), int(sizes.max()))


def _lower_solve(factor: Array, right: Array) -> Array:
    """The solutions of lower triangular systems, (parts, size, size) and (parts, size, columns)."""
    from scipy.linalg import solve_triangular

    if len(factor) == 1:
        return np.asarray(solve_triangular(factor[0], right[0], lower=True), dtype=np.float64)[None]
    solved = np.empty_like(right)
    for row in range(factor.shape[1]):
        before = (factor[:, row, None, :row] @ solved[:, :row])[:, 0]
        solved[:, row] = (right[:, row] - before) / factor[:, row, row, None]
    return solved


@dataclass(frozen=True)
class Design:
    """The long form of scores: one row per score that there is."""

    factors: tuple[str, ...]
    levels: tuple[tuple[str, ...], ...]
    y: Array
    codes: Mapping[str, Codes]
    """Of each factor, and of the block by its name: (n,)"""
    block: str
    model: tuple[str, ...]
    """The factors of a trained model, the sub-plots left out: together they are called `model`."""

    def fixed(self, leave_out: str | None = None) -> tuple[Array, list[str], list[str]]:
        """Deviation-coded full factorial (n, p), the name of each column (as R's contr.sum) and its term.

        `leave_out` names a term to leave out, its factors joined by `:`.
        """
        return coded(self.factors, self.levels, self.codes, leave_out)

    def grouping(self, term: Sequence[str]) -> Codes:
        """One code per combination of the columns of a random term."""
        stacked = np.column_stack([self.codes[name] for name in term])
        return np.asarray(np.unique(stacked, axis=0, return_inverse=True)[1], dtype=np.int64).reshape(-1)


def coded(
    factors: Sequence[str],
    levels: Sequence[Sequence[str]],
    codes: Mapping[str, Codes],
    leave_out: str | None = None,
) -> tuple[Array, list[str], list[str]]:
    """See `Design.fixed`."""
    n = len(next(iter(codes.values())))
    columns, names, terms = [np.ones((n, 1))], ["(Intercept)"], ["(Intercept)"]
    for order in range(1, len(factors) + 1):
        for term in itertools.combinations(range(len(factors)), order):
            name = ":".join(factors[index] for index in term)
            if name == leave_out:
                continue
            parts = [deviation(len(levels[index]))[codes[factors[index]]] for index in term]
            # R counts the levels of the first factor fastest.
            block = reduce(lambda a, b: (b[:, :, None] * a[:, None, :]).reshape(n, -1), parts)
            columns.append(block)
            terms += [name] * block.shape[1]
            numbered = [[f"{factors[index]}{1 + c}" for c in range(len(levels[index]) - 1)] for index in term]
            names += [":".join(reversed(label)) for label in itertools.product(*reversed(numbered))]
    return np.hstack(columns), names, terms


def deviation(k: int) -> Array:
    """Deviation coding of k levels, (k, k - 1): the last level is minus the sum of the others (R's contr.sum)."""
    return np.vstack([np.eye(k - 1), -np.ones(k - 1)])


def design(scores: Scores) -> Design:
    """The long form of blocks x cells; with replicates a row of each."""
    rows, columns = np.nonzero(~np.isnan(scores.values))
    y = scores.values[rows, columns]
    if scores.replicates is not None:
        rows, columns, y = scores.replicates
    cells = np.array(list(itertools.product(*(range(len(levels)) for levels in scores.levels))), dtype=np.int64)
    codes: dict[str, Codes] = {scores.block_name: rows.astype(np.int64)}
    for index, factor in enumerate(scores.between):
        position = {level: at for at, level in enumerate(scores.between_levels[index])}
        codes[factor] = np.array([position[scores.groups[row][index]] for row in rows], dtype=np.int64)
    for index, factor in enumerate(scores.factors):
        codes[factor] = cells[columns, index]
    return Design(
        factors=(*scores.between, *scores.factors),
        levels=(*scores.between_levels, *scores.levels),
        y=y,
        codes=codes,
        block=scores.block_name,
        model=tuple(factor for factor in scores.factors if factor not in scores.sub_plots),
    )


def run(scores: Scores, random: Sequence[tuple[str, ...]]) -> tuple[dict[str, Any], Fit]:
    """`run_design` of blocks x cells; missing scores are left out, and every other score enters."""
    return run_design(design(scores), random)


def run_design(table: Design, random: Sequence[tuple[str, ...]]) -> tuple[dict[str, Any], Fit]:
    """One model of rows in blocks, in the blocks of the output, and its fit.

    Blocks: `random` (the formula), `n`, `singular`, `REML_criterion`, `logLik_REML` (both depend on the coding of the
    factors; this is deviation coding), `varcomp`, `fixef`, `anova_type3_satterthwaite`, `wald_chi2_type3`, and `icc`,
    the share of each random term in the variance.

    Args:
        table: the rows
        random: the random terms, each a tuple of columns such as `("seed",)` or `("seed", "arch", "finetune")`

    Raises:
        BadInput: as `fit`
    """
    from scipy.stats import chi2
    from scipy.stats import t as t_distribution

    x, names, terms = table.fixed()
    groups = {label(table, term): table.grouping(term) for term in random}
    groups = dict(sorted(groups.items(), key=lambda item: (-int(item[1].max()), item[0])))
    fitted = fit(table.y, x, groups)
    fixed = []
    for index, name in enumerate(names):
        unit = np.eye(len(names))[index]
        se, df = math.sqrt(fitted.covariance[index, index]), fitted.df(unit)
        t = float(fitted.beta[index]) / se
        p = 2 * float(t_distribution.sf(abs(t), df))
        fixed.append(
            {"term": name, "Estimate": float(fitted.beta[index]), "Std. Error": se, "df": df, "t value": t,
             "Pr(>|t|)": p}
        )  # fmt: skip
    anova, wald = [], []
    for term in dict.fromkeys(terms[1:]):
        rows = np.eye(len(names))[[index for index, of in enumerate(terms) if of == term]]
        test = fitted.f_test(rows)
        anova.append({"term": term, **test})
        statistic = float(test["F"]) * int(test["df1"])
        df = int(test["df1"])
        wald.append({"term": term, "df": df, "chi2": statistic, "p": float(chi2.sf(statistic, df))})
    total = float(fitted.variances.sum())
    content = {
        "random": " + ".join(f"(1|{name})" for name in groups),
        "n": fitted.n,
        "singular": fitted.singular,
        "REML_criterion": fitted.deviance,
        "logLik_REML": fitted.log_likelihood,
        "varcomp": [
            {"grp": name, "vcov": float(variance), "sdcor": math.sqrt(variance)}
            for name, variance in zip((*fitted.groups, "Residual"), fitted.variances, strict=True)
        ],
        "icc": {name: float(v) / total for name, v in zip(fitted.groups, fitted.variances, strict=False)},
        "fixef": fixed,
        "anova_type3_satterthwaite": anova,
        "wald_chi2_type3": wald,
    }
    return content, fitted


def likelihood(scores: Scores, random: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    """The model by maximum likelihood, and the likelihood-ratio test of the interaction of all factors.

    Only likelihoods of ML compare models of different fixed effects. `ML`: logLik, AIC, BIC; `lrt`: term, chi2, df, p.
    """
    from scipy.stats import chi2

    table = design(scores)
    groups = {label(table, term): table.grouping(term) for term in random}
    x, _, terms = table.fixed()
    highest = terms[-1]
    whole = fit(table.y, x, groups, reml=False)
    fewer = fit(table.y, table.fixed(leave_out=highest)[0], groups, reml=False)
    df, statistic = terms.count(highest), max(0.0, fewer.deviance - whole.deviance)
    parameters = x.shape[1] + len(groups) + 1
    return {
        "ML": {
            "logLik": whole.log_likelihood,
            "AIC": whole.deviance + 2 * parameters,
            "BIC": whole.deviance + math.log(whole.n) * parameters,
        },
        "lrt": {"term": highest, "chi2": statistic, "df": df, "p": float(chi2.sf(statistic, df))},
    }


def effects_of(fitted: Fit, table: Design, random: Sequence[tuple[str, ...]]) -> tuple[Array, Array, Array]:
    """Fitted scores (n,), what is left of the scores (n,), and the predicted effect of each level of the first term.

    The effects of the levels are best linear unbiased predictions (Henderson 1950); the fitted scores contain those of
    every term. A term without variance has effects of 0.
    """
    x, _, _ = table.fixed()
    groups = {label(table, term): table.grouping(term) for term in random}
    around: Array = table.y - x @ fitted.beta
    kept = [name for name, variance in zip(fitted.groups, fitted.variances, strict=False) if variance > 0]
    first = label(table, random[0])
    if not kept:
        return table.y - around, around, np.zeros(int(groups[first].max()) + 1)
    from scipy import sparse
    from scipy.sparse.linalg import splu

    blocks = [indicator(groups[name]) for name in kept]
    of = dict(zip(fitted.groups, fitted.variances, strict=False))
    z = sparse.hstack(blocks, format="csc")
    penalty = np.concatenate(
        [np.full(block.shape[1], fitted.variances[-1] / of[name]) for name, block in zip(kept, blocks, strict=True)]
    )
    predicted: Array = splu(sparse.csc_array(z.T @ z + sparse.diags_array(penalty))).solve(z.T @ around)
    ends = np.cumsum([0, *(block.shape[1] for block in blocks)])
    told = {name: predicted[ends[index] : ends[index + 1]] for index, name in enumerate(kept)}
    residual: Array = np.asarray(around - z @ predicted, dtype=np.float64)
    return table.y - residual, residual, told.get(first, np.zeros(int(groups[first].max()) + 1))


def cells_of(fitted: Fit, factors: Sequence[str], levels: Sequence[Sequence[str]]) -> Cells:
    """The fitted cell means."""
    grid = np.array(list(itertools.product(*(range(len(part)) for part in levels))), dtype=np.int64)
    x, _, _ = coded(factors, levels, {factor: grid[:, index] for index, factor in enumerate(factors)})
    covariance = x @ fitted.covariance @ x.T
    shown = tuple(tuple(part) for part in levels)
    return Cells(tuple(factors), shown, x @ fitted.beta, covariance, lambda weights: fitted.df(x.T @ weights))


def label(table: Design, term: Sequence[str]) -> str:
    """`seed:model` where a random term is that of whole models of several factors; else its columns."""
    rest = [name for name in term if name != table.block]
    inner = ["model"] if len(rest) > 1 and set(rest) == set(table.model) else rest
    return ":".join([*([table.block] if table.block in term else []), *inner])


def terms_of(scores: Scores) -> dict[str, list[tuple[str, ...]]]:
    """The models that a design allows, each with its random terms.

    `block` is `(1|block)`. Where a trained model is tested at several places (`scores.sub_plots`), its scores share its
    training: `splitplot` adds `(1|block:model)`, `full` also `(1|block:place)`. With replicates, `replicates` adds the
    interaction of the block with every cell.
    """
    block: tuple[str, ...] = (scores.block_name,)
    places = scores.sub_plots
    whole = tuple(factor for factor in scores.factors if factor not in places)
    models: dict[str, list[tuple[str, ...]]] = {"block": [block]}
    if whole and places:
        models["splitplot"] = [block, (*block, *whole)]
        models["full"] = [*models["splitplot"], (*block, *places)]
    if scores.replicates is not None:
        models["replicates"] = [*list(models.values())[-1], (*block, *scores.factors)]
    return models


def anova_table(content: Mapping[str, Any]) -> pd.DataFrame:
    """`anova_type3_satterthwaite` of `run` as a table."""
    return pd.DataFrame(content["anova_type3_satterthwaite"])
