"""What a statistics run leaves behind: stats.json, tables as CSV, Markdown and LaTeX, report.md and figures."""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ser_analysis.scores import Array, Scores, range_of, rows_of
from ser_analysis.wording import TARGETS, cut, number, p_value
from ser_eval.run_folder import write_json, write_table, write_text

STATS_JSON, REPORT_MD = "stats.json", "report.md"
RNG_SEED = 20240229
"""Seed of every Monte-Carlo draw of the statistics."""
LIBRARIES = ("numpy", "pandas", "scipy", "statsmodels", "patsy", "matplotlib")
PRINTED = {
    "pairs": [
        "family", "at", "averaged_over", "a", "b", "planned", "n", "mean_diff", "ci95_low", "ci95_high", "t",
        "p", "p_holm", "signflip_exact_p", "signflip_mc_p", "signflip_p_max_t", "d_z", "g_av", "prob_a_gt_b_paired",
        "tost_p_holm",
    ],
    "rm_anova": [
        "term", "df1", "df2", "F", "p", "p_gg", "p_hf", "p_holm", "eta2_g", "partial_eta2", "partial_eta2_ci90_low",
        "partial_eta2_ci90_high", "partial_omega2",
    ],
    "rm_anova_logit": ["term", "df1", "df2", "F", "p", "p_gg", "p_hf", "p_holm", "eta2_g", "partial_eta2"],
    "two_groups": ["factor", "at", "a", "b", "n_a", "n_b", "mean_diff", "welch_t", "welch_df", "welch_p", "hedges_g"],
    "speaker_intervals": [
        "at", "model", "n_clips", "n_speakers", "uar", "ci95_low", "ci95_high", "simulated_coverage", "bca_low",
        "bca_high", "percentile_low", "percentile_high", "n_runs", "retrained_low", "retrained_high",
    ],
    "speaker_pairs": [
        "at", "a", "b", "planned", "n_speakers", "mean_diff", "ci95_low", "ci95_high", "t", "df", "p", "p_holm",
        "swap_p", "swap_p_holm", "simulated_coverage", "n_runs", "retrained_low", "retrained_high", "retrained_p_holm",
    ],
    "speaker_gaps": [
        "at", "model", "first", "second", "n_first", "n_second", "gap", "ci95_low", "ci95_high", "welch_p",
        "permutation_p", "smallest_possible_p",
    ],
    "rating_contrasts": [
        "dv", "at", "a", "b", "planned", "n", "mean_diff", "ci95_low", "ci95_high", "t", "p", "p_holm",
        "signflip_exact_p", "signflip_mc_p", "d_z", "nb_p", "nb_p_holm", "tost_p_holm",
    ],
    "rating_intervals": [
        "at", "dv", "model", "n_clips", "n_speakers", "ccc", "ci95_low", "ci95_high", "simulated_coverage", "bca_low",
        "bca_high", "percentile_low", "percentile_high",
    ],
    "rating_pairs": [
        "at", "dv", "a", "b", "planned", "n_speakers", "mean_diff", "ci95_low", "ci95_high", "t", "df", "p", "p_holm",
        "swap_p", "swap_p_holm", "simulated_coverage",
    ],
    "rating_gaps": [
        "at", "dv", "model", "first", "second", "n_first", "n_second", "of_first", "of_second", "gap", "ci95_low",
        "ci95_high", "welch_p", "permutation_p", "smallest_possible_p",
    ],
}  # fmt: skip
"""Columns of the Markdown and LaTeX form of the widest tables; their CSV holds all."""
LEGACY = "for comparison with older papers only: it takes scores that share a block for independent"
CAPTIONS = {
    "descriptives": "Descriptives",
    "rm_anova": "Repeated-measures ANOVA, each effect against its own block interaction",
    "sphericity": "Sphericity: Mauchly's test, Greenhouse-Geisser and Huynh-Feldt epsilon",
    "rm_anova_logit": "The same ANOVA on the logit of the scores (sensitivity)",
    "strata": "Split-plot ANOVA by error stratum",
    "pairs": "Paired contrasts, Holm within each family",
    "nadeau_bengio": "Paired contrasts in-domain, corrected for overlapping training sets (Nadeau-Bengio)",
    "lmm_anova": "Mixed model of all scores by REML, type III F tests with Satterthwaite df",
    "lmm_variances": "Mixed model: variance components",
    "block_means_anova": "ANOVA of the means of the blocks, each block counting once (companion of the mixed model)",
    "marginal_means": "Estimated marginal means",
    "marginal_contrasts": "Pairs of marginal means, by Tukey and by Holm",
    "simple_effects": "Simple effects, Holm within each factor",
    "interaction_contrasts": "Interaction contrasts (differences of differences), unadjusted",
    "art_anova": "ANOVA of aligned ranks (ART), each line from its own ranks; for comparison with papers that use it",
    "art_contrasts": "Contrasts of aligned ranks (ART-C), Holm within each family",
    "friedman": "Friedman's test, with and without tie correction, and Iman-Davenport's F",
    "friedman_pairs": "Mean ranks of pairs, Nemenyi's test",
    "anova_type1": "Between-groups ANOVA, type I",
    "anova_type2": "Between-groups ANOVA, type II",
    "anova_type3": "Between-groups ANOVA, type III (deviation coding)",
    "fixed_block_type2": "ANOVA with a constant per block, type II",
    "fixed_block_type3": "ANOVA with a constant per block, type III",
    "hc3_type2": "Between-groups ANOVA without equal variances (HC3), type II",
    "hc3_type3": "Between-groups ANOVA without equal variances (HC3), type III",
    "effect_sizes": "Effect sizes of type III with 90 % intervals",
    "oneway": "One factor at a time, the others ignored: Welch, Kruskal-Wallis, Brown-Forsythe",
    "tukey": "Tukey's honest significant difference, the other factors ignored",
    "games_howell": "Games-Howell test, the other factors ignored",
    "two_groups": "Unpaired comparisons of two groups, unadjusted",
    "variance_components": "Where the spread of runs comes from: splits and training seeds",
    "speaker_intervals": "UAR over speakers, with the coverage that a simulation found for a nominal 95 %",
    "speaker_pairs": "Differences of UAR over speakers (a - b), with the speaker-swap test",
    "speaker_spread": "Worst and best speaker, and where the UAR of a new speaker would lie",
    "class_recalls": "Recall per class, worst first, with intervals over speakers",
    "speaker_gaps": "Gaps between groups of speakers (first - second); the unit is the speaker",
    "rating_means": "CCC of the ratings, mean over blocks",
    "rating_contrasts": "CCC of the ratings: paired contrasts over blocks, Holm within each score and test set",
    "rating_intervals": "CCC of the ratings over speakers, all seeds' clips together, with the coverage that a "
    "simulation found for a nominal 95 %",
    "rating_pairs": "Differences of CCC over speakers (a - b), with the speaker-swap test",
    "rating_spread": "Worst and best speaker by the CCC of their own clips, and where that of a new one would lie",
    "rating_gaps": "Gaps of CCC between groups of speakers (first - second); the unit is the speaker",
    "mcnemar": "McNemar's test, which takes clips for independent",
    "published": "ANOVA rebuilt from published means and SDs",
    "assumptions": "Assumptions (reported, never used to choose a test)",
}
IN_REPORT = (
    "descriptives", "rm_anova", "sphericity", "pairs", "nadeau_bengio", "lmm_anova", "lmm_variances",
    "block_means_anova", "friedman", "anova_type3", "effect_sizes", "hc3_type3", "simple_effects", "published",
    "assumptions", "variance_components", "speaker_intervals", "speaker_pairs", "speaker_spread", "class_recalls",
    "speaker_gaps", "rating_means", "rating_contrasts", "rating_intervals", "rating_pairs", "rating_spread",
    "rating_gaps", "mcnemar",
)  # fmt: skip
"""The tables that report.md shows; it names the others."""
T2_TABLES = frozenset(
    (
        "nadeau_bengio", "speaker_intervals", "speaker_pairs", "speaker_spread", "class_recalls", "speaker_gaps",
        "rating_intervals", "rating_pairs", "rating_spread", "rating_gaps",
    )
)  # fmt: skip
"""The tables about new speakers, whatever the blocks are."""
OF_CLIPS = "of these clips"
"""Stands for a target where a test takes clips for independent, and so speaks of none."""


@dataclass(frozen=True)
class StatsResult:
    """What `ser stats` did."""

    folder: Path
    lines: list[str]
    """A short summary for the terminal."""
    content: dict[str, Any]
    """What stats.json holds, as plain JSON values."""


@dataclass(frozen=True)
class CellMeans:
    """What the interaction plot shows: a mean and its 95 % interval for each combination of factors."""

    factors: tuple[str, ...]
    levels: tuple[tuple[str, ...], ...]
    mean: Array
    """(cells,), the last factor fastest"""
    low: Array
    high: Array
    what: str
    """What mean and interval are of, for the title."""

    @classmethod
    def described(
        cls, factors: Sequence[str], levels: Sequence[Sequence[str]], table: pd.DataFrame, what: str
    ) -> CellMeans:
        """From a table of descriptives, a row per cell."""
        mean, low, high = (table[column].to_numpy(dtype=float) for column in ("mean", "ci95_low", "ci95_high"))
        return cls(tuple(factors), tuple(map(tuple, levels)), mean, low, high, what)


@dataclass
class Analysis:
    """One analysis on its way to the disk."""

    title: str
    content: dict[str, Any]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    """By name, the keys of `CAPTIONS`."""
    facts: list[str] = field(default_factory=list)
    """What was analysed, averaged, left out."""
    findings: list[str] = field(default_factory=list)
    omnibus: list[str] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)
    """The outcome in words without symbols, for the head of the report."""
    limits: list[str] = field(default_factory=list)
    """What may not be concluded."""
    people: list[str] = field(default_factory=list)
    """What holds for new speakers, from the speakers themselves."""
    ratings: list[str] = field(default_factory=list)
    """Every dimension of ratings in short, both targets."""
    scores: Scores | None = None
    """For the figures; None for a between-groups analysis, whose units stand in `groups`."""
    groups: dict[str, list[float]] = field(default_factory=dict)
    ranks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """For the critical-difference diagrams: what `friedman.run` answers, by the levels of the place joined with -."""
    chance: float | None = None
    cell_means: CellMeans | None = None
    """For the interaction plot; absent with one factor, except in designs with rows nested in blocks."""
    residuals: tuple[Array, Array] | None = None
    """Fitted scores and what is left of the scores, each (n,)."""
    block_effects: Array | None = None
    """Predicted effects of the blocks of a mixed model; absent where there is none, or no variance of theirs."""


def provenance(file: Path, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """SHA-256 of the input, versions and the RNG seed; no time and no path, so that a rerun writes the same bytes."""
    return {
        "input": {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()},
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "rng_seed": RNG_SEED,
        **(extra or {}),
    }


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain JSON values; undefined numbers are null."""
    return [{key: plain(value) for key, value in row.items()} for row in rows_of(table)]


def plain(value: Any) -> Any:
    """NumPy and pandas scalars as Python values; NaN and infinities as None."""
    if value is pd.NA or value is None:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def write(out: Path, analysis: Analysis) -> list[Path]:
    """Write every file of one analysis and return them."""
    from ser_analysis.figures import draw

    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []

    def keep(name: str) -> Path:
        written.append(out / name)
        return out / name

    analysis.content = plain(analysis.content)
    write_json(keep(STATS_JSON), analysis.content)
    code, printed = str(analysis.content["target"]["code"]), {}
    for name, table in analysis.tables.items():
        target = "T2" if name in T2_TABLES else OF_CLIPS if name == "mcnemar" else code
        full = table.copy()
        full.insert(0, "target", target)
        write_table(keep(f"{name}.csv"), full)
        shown = full
        if name in PRINTED:
            shown = full[["target", *(column for column in PRINTED[name] if column in full)]]
        shown = shown[[column for column in shown.columns if not _blank(shown[column])]]
        caption = f"{CAPTIONS[name]}: it says nothing about other people"
        if target in TARGETS:
            caption = f"{CAPTIONS[name]}. Target {target} ({TARGETS[target]})"
        in_blocks = analysis.scores is not None or "lmm" in analysis.content
        if in_blocks and name.startswith(("anova_type", "fixed_block_type")):
            caption = f"{CAPTIONS[name]}, {LEGACY}. Target {target} ({TARGETS[target]})"
        if name == "descriptives" and "ci95_low" in shown:
            ends = [
                cut(row["ci95_low"], row["ci95_high"], str(analysis.content["audit"]["dv"])) for row in rows_of(shown)
            ]
            if any(remark for _, _, remark in ends):
                shown = shown.assign(ci95_low=[low for low, _, _ in ends], ci95_high=[high for _, high, _ in ends])
                low, high = range_of(str(analysis.content["audit"]["dv"])) or (0.0, 1.0)
                caption += f" Intervals are cut at {low:g} and {high:g}; the CSV and stats.json hold them uncut."
        printed[name] = f"{caption}\n\n{markdown(shown)}"
        write_text(keep(f"{name}.md"), printed[name])
        write_text(keep(f"{name}.tex"), latex(shown, caption=caption, label=f"tab:{name.replace('_', '-')}"))
    figures = draw(out, analysis)
    written += figures
    write_text(keep(REPORT_MD), report(analysis, printed, [file for file in figures if file.suffix == ".png"]))
    return written


def remove_stale(out: Path, written: Sequence[Path]) -> None:
    """Delete what an earlier run left in `out` and its sub-folders under our names and this run did not write."""
    ours = re.compile(
        rf"stats\.json|report\.md|({'|'.join(CAPTIONS)})\.(csv|md|tex)|(strip|interaction|estimation|residuals|convergence|cd|speakers)(-[^/]*)?\.(pdf|png)"
    )
    kept = set(written)
    folders = [out, *sorted(file.parent for file in out.glob(f"*/{STATS_JSON}"))]
    for folder in folders:
        for file in sorted(folder.iterdir()):
            if file not in kept and file.is_file() and ours.fullmatch(file.name):
                file.unlink()
        if folder != out and not any(folder.iterdir()):
            folder.rmdir()


_REACH = {
    "T1": "More seeds narrow T1 only. T3 (new corpora) is not answered by any test here.",
    "T2": "Each block is a speaker.",
    "T3": "Each block is a corpus; with two to four of them nothing more than a description is possible.",
}


def report(analysis: Analysis, tables: Mapping[str, str], figures: Sequence[Path]) -> str:
    """report.md: what was analysed, who is better and by how much, the ANOVA, then tables and figures."""
    code = str(analysis.content["target"]["code"])
    parts = [
        f"# {analysis.title}",
        f"**Target {code}** ({TARGETS[code]}) unless a sentence or table names another. {_REACH[code]}",
    ]
    if analysis.plain:
        parts += ["## In plain words", _bullets(analysis.plain)]
    if analysis.limits:
        parts += ["## What may not be concluded", _bullets(analysis.limits)]
    parts += ["## What was analysed", _bullets(analysis.facts)]
    if analysis.findings:
        parts += ["## Is A better than B, and by how much?", _bullets(analysis.findings)]
    if analysis.people:
        parts += ["## Would it hold for other people?", _bullets(analysis.people)]
    if analysis.ratings:
        parts += ["## Ratings in short", _bullets(analysis.ratings)]
    if analysis.omnibus:
        parts += ["## Analysis of variance", _bullets(analysis.omnibus)]
    parts += ["## Tables", *(text for name, text in tables.items() if name in IN_REPORT)]
    others = [f"{CAPTIONS[name]}: [{name}.md]({name}.md)" for name in tables if name not in IN_REPORT]
    if others:
        parts += ["### Further tables", _bullets(others)]
    if figures:
        parts += ["## Figures", "\n".join(f"![{file.stem}]({file.name})" for file in figures)]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def markdown(table: pd.DataFrame) -> str:
    """A table in GitHub's Markdown, rounded for reading."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in _cells(table)]
    lines = ["| " + " | ".join(map(str, table.columns)) + " |"]
    lines.append("|" + "|".join(" ---: " if _numeric(table[column]) else " --- " for column in table.columns) + "|")
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def latex(table: pd.DataFrame, *, caption: str, label: str) -> str:
    """A booktabs table, rounded for reading; needs \\usepackage{booktabs} (and graphicx for wide ones)."""
    columns = "".join("r" if _numeric(table[column]) else "l" for column in table.columns)
    body = [" & ".join(map(_escape, row)) + r" \\" for row in _cells(table)]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_escape(caption)}}}",
            rf"\label{{{label}}}",
            r"\centering\small",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(_escape(str(column)) for column in table.columns) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _cells(table: pd.DataFrame) -> list[list[str]]:
    return [[_cell(key, value) for key, value in row.items()] for row in rows_of(table)]


def _cell(column: str, value: Any) -> str:
    value = plain(value)
    if value is None:
        return ""
    if isinstance(value, float):
        is_p = column in ("p", "mauchly_p") or column.startswith("p_") or column.endswith("_p") or "_p_" in column
        return p_value(value) if is_p else number(value)
    return str(value)


def _numeric(column: pd.Series[Any]) -> bool:
    return pd.api.types.is_numeric_dtype(column)


def _blank(column: pd.Series[Any]) -> bool:
    return bool((column.isna() | (column.astype(str) == "")).all())


def _escape(text: str) -> str:
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "|": r"\textbar{}",
        "<": r"$<$",
        ">": r"$>$",
    }
    return "".join(special.get(char, f"\\{char}" if char in "&%$#_{}" else char) for char in text)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
