"""The analysis that every blocked table gets: audit, descriptives, ANOVA, contrasts, assumptions, sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ser_analysis import wording
from ser_analysis.methods import assumptions, contrasts, descriptives, rm_anova
from ser_analysis.output import RNG_SEED, Analysis, records
from ser_analysis.scores import Scores, audit, rows_of

SUMMARY_LINES = 15


def analyse(
    scores: Scores,
    *,
    title: str,
    provenance: Mapping[str, Any],
    facts: Sequence[str] = (),
    extra_audit: Mapping[str, Any] | None = None,
    chance: float | None = None,
) -> Analysis:
    """Everything that the blocks of `scores` allow; what they do not allow is said in `facts`."""
    audited = {**audit(scores), **(extra_audit or {})}
    tables = {"descriptives": descriptives.run(scores)}
    content: dict[str, Any] = {
        "target": {"code": "T1", "question": wording.TARGETS["T1"]},
        "provenance": dict(provenance),
        "audit": audited,
        "descriptives": records(tables["descriptives"]),
    }
    told = [*facts, *_facts(audited)]
    analysis = Analysis(title, content, tables, told, scores=scores, chance=chance)

    models = int(np.prod([len(scores.levels[scores.factors.index(factor)]) for factor in scores.model]))
    if models < 2:
        told.append("T1: there is one model, so there is nothing to compare; its descriptives stand below.")
    else:
        _compare(scores, analysis, int(audited["n_complete_blocks"]))
    content["facts"], content["findings"], content["omnibus"] = told, analysis.findings, analysis.omnibus
    return analysis


def _compare(scores: Scores, analysis: Analysis, n_complete: int) -> None:
    content, tables, told = analysis.content, analysis.tables, analysis.facts
    anova = None
    if n_complete > 1:
        anova = rm_anova.run(scores)
        checks = assumptions.run(*_residuals(scores))
        tables["rm_anova"] = anova
        sphericity = anova.loc[anova["df1"] > 1, ["term", "mauchly_w", "mauchly_p", "gg_eps", "p_gg", "hf_eps", "p_hf"]]
        if len(sphericity):
            tables["sphericity"] = sphericity
        tables["assumptions"] = checks
        content["rm_anova"] = {
            "target": "T1",
            "n_blocks": n_complete,
            "table": records(anova),
            "mauchly": records(sphericity[["term", "mauchly_w", "mauchly_p"]]),
            "gg_hf": records(sphericity[["term", "gg_eps", "p_gg", "hf_eps", "p_hf"]]),
        }
        content["assumptions"] = assumptions.as_blocks(checks)
        analysis.omnibus += [wording.anova_sentence(row) for row in rows_of(anova)]
    else:
        told.append(
            f"T1: {n_complete} of {len(scores.blocks)} blocks has a score in every cell; an analysis of variance "
            "needs two complete blocks, so there is none. More splits (seeds) are needed."
        )

    pairs = contrasts.run(scores, rng_seed=RNG_SEED)
    corrected = [column for column in pairs.columns if column.startswith("nb_")]
    tables["pairs"] = pairs.drop(columns=corrected)
    if corrected and pairs["nb_p"].notna().any():
        t2 = pairs.loc[pairs["nb_p"].notna(), [*contrasts.FAMILY, "a", "b", "n", "mean_diff", *corrected]]
        tables["nadeau_bengio"] = t2.rename(columns=lambda name: name.removeprefix("nb_"))
    content["pairs"] = [_pair_record(row, corrected) for row in rows_of(pairs)]

    primary = pairs[pairs["averaged_over"] == ""]
    largest = int(primary.groupby("at").size().max())
    analysis.findings += [wording.pair_sentence(row, scores.dv) for row in rows_of(primary)]
    for factor in scores.factors:
        marginal = pairs[(pairs["family"] == factor) & (pairs["averaged_over"] != "")]
        if marginal.empty or factor not in scores.model:
            continue
        analysis.findings += [wording.pair_sentence(row, scores.dv) for row in rows_of(marginal)]
        if anova is not None and (warning := wording.interaction_warning(factor, anova)):
            analysis.findings.append(warning)
    if any(factor not in scores.model for factor in scores.factors):
        told.append("A difference between two test sets is domain shift and difficulty, not the quality of a corpus.")
    if note := wording.power_note(len(scores.blocks), largest):
        told.append(note)


def summary(analysis: Analysis) -> list[str]:
    """The 5 to 15 lines for the terminal."""
    scores = analysis.scores
    assert scores is not None
    lines = [analysis.title, f"Target T1, {wording.TARGETS['T1']}"]
    rows = rows_of(analysis.tables["descriptives"])
    lines += _some([wording.descriptive_line(row, scores) for row in rows], 4, "cells")
    if len(scores.factors) > 1:
        lines += _some(analysis.omnibus, 2, "effects")
    lines += _some(_best_and_next(analysis), 4, "test sets")
    return lines + _some(analysis.facts, max(1, SUMMARY_LINES - 2 - len(lines)), "notes")


def _best_and_next(analysis: Analysis) -> list[str]:
    """For each test set, the comparison of the two models with the highest means."""
    if "pairs" not in analysis.tables or analysis.scores is None:
        return []
    pairs, lines = analysis.tables["pairs"], []
    for _, group in pairs[(pairs["averaged_over"] == "") & (pairs["n"] > 0)].groupby("at", sort=False):
        means = {row[side]: row[f"mean_{side}"] for row in rows_of(group) for side in ("a", "b")}
        top = set(sorted(means, key=lambda name: -means[name])[:2])
        lines += [wording.pair_line(row, analysis.scores.dv) for row in rows_of(group) if {row["a"], row["b"]} == top]
    return lines


def _some(lines: Sequence[str], most: int, what: str) -> list[str]:
    rest = len(lines) - most
    return list(lines) if rest <= 0 else [*lines[:most], f"... and {rest} more {what} in report.md"]


def _facts(audited: Mapping[str, Any]) -> list[str]:
    counted = f"{audited['n_scores']} scores"
    if "n_runs" in audited:  # a run that was tested on two corpora has two scores
        counted += f" of {audited['n_runs']} runs"
    facts = [
        f"{counted} in {audited['n_blocks']} blocks (distinct splits) x {audited['cells']} cells; "
        f"{audited['n_complete_blocks']} blocks are complete."
    ]
    if averaged := audited["blocks_with_several_runs_averaged"]:
        facts.append(
            f"{len(averaged)} of {audited['n_blocks']} blocks hold several runs of a model (training seeds that share "
            "one split): their mean is the score of the block. The spread inside blocks is `sd_within_block`."
        )
    if missing := audited["missing"]:
        named = "; ".join(", ".join(f"{key}={value}" for key, value in item.items()) for item in missing[:5])
        more = f" and {len(missing) - 5} more (stats.json)" if len(missing) > 5 else ""
        facts.append(
            f"{len(missing)} scores are missing: {named}{more}. The ANOVA leaves out the blocks concerned "
            f"({', '.join(audited['dropped_blocks'])}); a pair uses every block that has both sides. "
            "Nothing is imputed."
        )
    return facts


def _residuals(scores: Scores) -> tuple[list[Any], Any]:
    """Cell scores of the complete blocks, and what block and cell means leave of them."""
    y = scores.values[scores.complete]
    residuals = y - y.mean(axis=0) - y.mean(axis=1, keepdims=True) + y.mean()
    return list(y.T), residuals.ravel()


def _pair_record(row: dict[str, Any], corrected: Sequence[str]) -> dict[str, Any]:
    record: dict[str, Any] = {"target": "T1"}
    record |= {key: value for key, value in row.items() if key not in corrected and "ci95" not in key}
    record["ci95"] = [row["ci95_low"], row["ci95_high"]]
    record["prob_a_gt_b_ci95"] = [row["prob_a_gt_b_ci95_low"], row["prob_a_gt_b_ci95_high"]]
    if corrected and not pd.isna(row["nb_p"]):
        nested = {name.removeprefix("nb_"): row[name] for name in corrected if "ci95" not in name}
        record["nadeau_bengio"] = {"target": "T2", **nested, "ci95": [row["nb_ci95_low"], row["nb_ci95_high"]]}
    return record
