"""The frame every method reads: one score per block and cell, plus the audit that says what it was made of."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ser_eval.errors import BadInput
from ser_eval.run_folder import parse_table

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

SHARES = frozenset({"uar", "accuracy", "f1", "macro_f1", "weighted_f1", "micro_f1"})
"""Scores that live in [0, 1]: anything outside is refused, and differences are told in points (x 100)."""
CCC = "ccc"
"""The mean CCC over dimensions; `ccc_<dimension>` is that of one. They live in [-1, 1]."""
EMPTY_LEVEL = "(empty)"


@dataclass(frozen=True)
class Scores:
    """One score per block (row) and cell (column); cells in Kronecker order, the last factor fastest.

    A block is a split of the corpus; a cell is a combination of factor levels. A missing score is NaN and stays NaN.
    """

    dv: str
    factors: tuple[str, ...]
    levels: tuple[tuple[str, ...], ...]
    blocks: tuple[str, ...]
    values: Array
    """(blocks, cells)"""
    where: tuple[str, ...] = ()
    """The factors that say where a model is tested, not what it is; the others together are the model."""
    n_runs: npt.NDArray[np.int64] | None = None
    """(blocks, cells): runs averaged into each score; None where every score is one run."""
    sd_within: Array | None = None
    """(cells,): pooled SD of the runs that share a block (training seeds of one split); NaN where there is one each."""
    test_train_ratio: Array | None = None
    """(cells,): clips tested / clips trained on, for cells tested on the training corpora; NaN elsewhere."""
    names: dict[tuple[str, ...], str] = field(default_factory=dict)
    """What to call a model, by its levels; the levels joined with + where absent."""
    block_name: str = "block"
    """The column that names the blocks."""
    between: tuple[str, ...] = ()
    """The factors that vary between blocks."""
    between_levels: tuple[tuple[str, ...], ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    """The levels of the `between` factors of each block."""
    plots: tuple[str, ...] = ()
    """The factors within which a trained model is the same, for a design without `where`; see `sub_plots`."""
    replicates: tuple[Codes, Codes, Array] | None = None
    """Block, cell and score of every row, where `values` averages replicates that are to enter the mixed model."""
    target: str = "T1"
    """What the blocks are a sample of: splits of this corpus (T1), speakers (T2) or corpora (T3)."""

    @property
    def model(self) -> tuple[str, ...]:
        """The factors that make up the model; all of them when every factor would be a `where`."""
        rest = tuple(factor for factor in self.factors if factor not in self.where)
        return rest or self.factors

    @property
    def sub_plots(self) -> tuple[str, ...]:
        """The factors at whose levels one and the same trained model is tested: its scores there share its training."""
        named = self.where if len(self.where) < len(self.factors) else ()
        return named or self.plots

    @property
    def cells(self) -> list[tuple[str, ...]]:
        """The factor levels of each column of `values`."""
        return list(itertools.product(*self.levels))

    @property
    def complete(self) -> npt.NDArray[np.bool_]:
        """Which blocks have a score in every cell."""
        return np.asarray(~np.isnan(self.values).any(axis=1))

    @property
    def places(self) -> list[tuple[str, ...]]:
        """The combinations of levels of the `where` factors; a single empty one without any."""
        where = [index for index, factor in enumerate(self.factors) if factor not in self.model]
        return list(itertools.product(*(self.levels[index] for index in where)))

    def columns_at(self, place: tuple[str, ...]) -> tuple[list[str], list[int]]:
        """Names and columns of the models tested at one place."""
        model = [index for index, factor in enumerate(self.factors) if factor in self.model]
        where = [index for index in range(len(self.factors)) if index not in model]
        found = [
            (self.name(tuple(cell[index] for index in model)), column)
            for column, cell in enumerate(self.cells)
            if tuple(cell[index] for index in where) == place
        ]
        return [name for name, _ in found], [column for _, column in found]

    def name(self, levels: tuple[str, ...]) -> str:
        """The model with these levels."""
        return self.names.get(levels, "+".join(levels))


def range_of(dv: str) -> tuple[float, float] | None:
    """What a score can be; None where its name does not tell."""
    if dv in SHARES:
        return 0.0, 1.0
    return (-1.0, 1.0) if is_ccc(dv) else None


def is_ccc(dv: str) -> bool:
    """Whether a score is a CCC, by its name."""
    return dv == CCC or dv.startswith(f"{CCC}_")


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as dictionaries."""
    names = [str(name) for name in table.columns]
    columns = [table[name].tolist() for name in table.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def natural(text: str) -> tuple[tuple[int, float, str], ...]:
    """Sort key that puts `s2` before `s10` and `0.5` before `10`."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return tuple((1, 0.0, part) if index % 2 == 0 else (0, float(part), part) for index, part in enumerate(parts))


def column_of(factor: str, taken: Sequence[str]) -> str:
    """What a table calls the column of a factor: `p (factor)` where one of its own columns has that name."""
    return f"{factor} (factor)" if factor in (*taken, "target") else factor


def read_text_table(file: Path) -> pd.DataFrame:
    """Read a table separated by comma, semicolon or tab, every value as text; factor levels are never numbers."""
    table = parse_table(file, separators=",;\t")
    if table.empty:
        raise BadInput(f"{file} holds no rows below its header")
    names = [str(name).strip() for name in table.columns]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"{file} has the column {name!r} more than once")
    return table.set_axis(names, axis="columns")


def need_columns(table: pd.DataFrame, columns: Sequence[str], source: str) -> None:
    """Refuse columns that the table lacks, listing those it has."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise BadInput(f"{source} has no column {', '.join(map(repr, missing))}; it has {', '.join(table.columns)}")


def numbers(table: pd.DataFrame, column: str, source: str) -> pd.Series[float]:
    """A text column as float; an empty cell becomes NaN, anything else that is not a finite number is refused."""
    text = table[column].str.strip()
    values = pd.to_numeric(text.where(text != ""), errors="coerce").astype(float)
    bad = ((text != "") & ~np.isfinite(values)).to_numpy()
    if bad.any():
        value = str(table[column][bad].iloc[0])
        comma = re.fullmatch(r"\s*-?\d*,\d+\s*", value)
        hint = f"; decimals need a point: {value.strip().replace(',', '.')}" if comma else ""
        raise BadInput(f"{source}, line {_line(bad)}: {column} = {value!r} is not a number{hint}")
    if (ends := range_of(column)) is not None:
        outside = ((values < ends[0]) | (values > ends[1])).to_numpy()
        if outside.any():
            raise BadInput(
                f"{source}, line {_line(outside)}: {column} = {values[outside].iloc[0]:g} is outside "
                f"[{ends[0]:g}, {ends[1]:g}]; divide percentages by 100"
            )
    return values


def pivot(
    table: pd.DataFrame,
    *,
    dv: str,
    factors: Sequence[str],
    block: str,
    where: Sequence[str] = (),
    names: dict[tuple[str, ...], str] | None = None,
    between: Sequence[str] = (),
    plots: Sequence[str] = (),
    target: str = "T1",
    order: Mapping[str, Sequence[str]] | None = None,
    replicates: bool = False,
) -> Scores:
    """Blocks x cells from long rows; several rows of one block and cell are averaged, and `n_runs` tells so.

    Args:
        table: the factors and the block as text, `dv` as float without NaN; `n_train` and `n_test` (clips) and
            `in_domain` (bool) where the Nadeau-Bengio correction is wanted
        dv: the score
        factors: what varies within the blocks
        block: the column that names the split
        where: the factors that are test sets or conditions
        names: what to call the models
        between: what varies between the blocks, constant within each
        plots: `Scores.plots`
        target: `Scores.target`
        order: of the levels of a factor, where it is not the natural one
        replicates: whether to keep every row, beside the averages
    """
    order = order or {}
    levels = tuple(
        tuple(order[factor] if factor in order else sorted(set(table[factor]), key=natural)) for factor in factors
    )
    blocks = tuple(sorted(set(table[block]), key=natural))
    cells = {cell: index for index, cell in enumerate(itertools.product(*levels))}
    rows = table[block].map({name: index for index, name in enumerate(blocks)}).to_numpy()
    columns = np.array([cells[cell] for cell in zip(*(table[factor] for factor in factors), strict=True)])
    score = table[dv].to_numpy(dtype=float)
    # Sorted, since a sum in floating point depends on the order of its terms, and so would the result on the file's.
    by_cell = np.lexsort((score, columns, rows))
    rows, columns, score = rows[by_cell], columns[by_cell], score[by_cell]

    shape = (len(blocks), len(cells))
    count, total, squares = np.zeros(shape, dtype=np.int64), np.zeros(shape), np.zeros(shape)
    np.add.at(count, (rows, columns), 1)
    np.add.at(total, (rows, columns), score)
    with np.errstate(invalid="ignore"):
        values = total / count
    np.add.at(squares, (rows, columns), (score - values[rows, columns]) ** 2)
    nested = (count - 1).clip(min=0).sum(axis=0)
    with np.errstate(invalid="ignore"):
        sd_within = np.sqrt(squares.sum(axis=0) / nested)

    ratio = None
    if {"n_train", "n_test", "in_domain"} <= set(table.columns):
        train, test, inside = np.zeros(shape[1]), np.zeros(shape[1]), np.ones(shape[1], dtype=bool)
        np.add.at(train, columns, table["n_train"].to_numpy(dtype=float)[by_cell])
        np.add.at(test, columns, table["n_test"].to_numpy(dtype=float)[by_cell])
        np.logical_and.at(inside, columns, table["in_domain"].to_numpy(dtype=bool)[by_cell])
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(inside & (train > 0), test / train, np.nan)
    return Scores(
        dv=dv,
        factors=tuple(factors),
        levels=levels,
        blocks=blocks,
        values=values,
        where=tuple(where),
        n_runs=count,
        sd_within=sd_within,
        test_train_ratio=ratio,
        names=names or {},
        block_name=block,
        between=tuple(between),
        between_levels=tuple(tuple(sorted(set(table[factor]), key=natural)) for factor in between),
        groups=tuple(map(tuple, table.groupby(block)[list(between)].first().loc[list(blocks)].to_numpy().tolist()))
        if between
        else (),
        plots=tuple(plots),
        replicates=(rows.astype(np.int64), columns.astype(np.int64), score) if replicates else None,
        target=target,
    )


def subset(scores: Scores, keep: npt.NDArray[np.bool_]) -> Scores:
    """Some of the blocks."""
    chosen = np.flatnonzero(keep)
    return replace(
        scores,
        blocks=tuple(scores.blocks[index] for index in chosen),
        values=scores.values[chosen],
        n_runs=None if scores.n_runs is None else scores.n_runs[chosen],
        groups=tuple(scores.groups[index] for index in chosen) if scores.groups else (),
        replicates=None,
    )


def audit(scores: Scores) -> dict[str, object]:
    """Cells, blocks, scores before averaging, balance, and every missing score by name."""
    missing = np.argwhere(np.isnan(scores.values))
    count = scores.n_runs if scores.n_runs is not None else (~np.isnan(scores.values)).astype(np.int64)
    cells = scores.cells
    return {
        "dv": scores.dv,
        "factors": dict(zip(scores.factors, map(list, scores.levels), strict=True)),
        **(
            {"between": dict(zip(scores.between, map(list, scores.between_levels), strict=True))}
            if scores.between
            else {}
        ),
        "cells": len(cells),
        "blocks": list(scores.blocks),
        "n_blocks": len(scores.blocks),
        "n_complete_blocks": int(scores.complete.sum()),
        "dropped_blocks": [name for name, whole in zip(scores.blocks, scores.complete, strict=True) if not whole],
        "n_scores": int(count.sum()),
        "blocks_with_several_runs_averaged": [
            name for name, most in zip(scores.blocks, count.max(axis=1, initial=0), strict=True) if most > 1
        ],
        "balanced": bool((count == count.flat[0]).all()),
        "missing": [
            {"block": scores.blocks[b], **dict(zip(scores.factors, cells[c], strict=True))} for b, c in missing
        ],
    }


def _line(bad: npt.NDArray[np.bool_]) -> int:
    return int(np.argmax(bad)) + 2  # the header is line 1
