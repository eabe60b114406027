"""Are two artefacts the same: by bytes, else by numbers, else what differs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from ser_eval import run_folder
from ser_scripts.errors import BadInput

Verdict = Literal["identical", "equal", "different"]
"""`identical`: the same bytes. `equal`: the same texts, and numbers within the tolerance."""
_SHOWN = 5


@dataclass(frozen=True)
class Compared:
    """One file against its counterpart."""

    name: str
    verdict: Verdict
    details: tuple[str, ...] = ()

    def line(self) -> str:
        """For a terminal."""
        words = {"identical": "identical, byte for byte", "equal": "equal", "different": "DIFFERENT"}[self.verdict]
        return f"{self.name}: {words}" + (f" ({'; '.join(self.details)})" if self.details else "")


def compare_predictions(name: str, old: Path, new: Path, tolerance: float) -> Compared:
    """Two prediction files of the same clips.

    Args:
        name: how to call them
        old: the recorded one
        new: the one made now
        tolerance: largest difference of a probability or predicted rating that counts as none
    """
    if old.read_bytes() == new.read_bytes():
        return Compared(name, "identical")
    before, now = run_folder.read_predictions(old), run_folder.read_predictions(new)
    if list(before.columns) != list(now.columns):
        return Compared(name, "different", (f"columns {', '.join(before.columns)}, now {', '.join(now.columns)}",))
    keys = ["corpus", "path"]
    before, now = before.set_index(keys), now.set_index(keys)
    shared = before.index.intersection(now.index)
    details = []
    if len(shared) < max(len(before), len(now)):
        details.append(f"{len(before)} clips, now {len(now)}, {len(shared)} of them the same")
    if shared.empty:
        return Compared(name, "different", tuple(details))
    first, second = before.loc[shared], now.loc[shared]
    told = [column for column in ("actor", "gender", "truth") if (first[column] != second[column]).any()]
    details += [f"{int((first[column] != second[column]).sum())} clips of another {column}" for column in told]
    answers = int((first["prediction"] != second["prediction"]).sum())
    prefixes = (run_folder.PROBABILITY_PREFIX, run_folder.PREDICTED_PREFIX)
    said = [column for column in before.columns if column.startswith(prefixes)]
    largest = float(np.abs(first[said].to_numpy(dtype=float) - second[said].to_numpy(dtype=float)).max(initial=0.0))
    same = not details and answers == 0 and largest <= tolerance
    details.append(f"{answers} of {len(shared)} answers differ")
    details.append(f"largest difference of a probability or rating {largest:.2g}, tolerance {tolerance:g}")
    if answers:
        scores = [_uar(table) for table in (first, second)]
        details.append(f"UAR {scores[0]:.4f}, now {scores[1]:.4f}")
    return Compared(name, "equal" if same else "different", tuple(details))


def _uar(table: pd.DataFrame) -> float:
    """Mean recall over the classes that have clips here."""
    return float(table.groupby("truth")["correct"].mean().mean())


def compare_tables(name: str, old: Path, new: Path, tolerance: float) -> Compared:
    """Two CSV tables, row by row: texts must be the same, numbers within an absolute or relative tolerance."""
    if old.read_bytes() == new.read_bytes():
        return Compared(name, "identical")
    before, now = run_folder.parse_table(old), run_folder.parse_table(new)
    if list(before.columns) != list(now.columns) or len(before) != len(now):
        sizes = [f"{len(table)} rows of {len(table.columns)} columns" for table in (before, now)]
        return Compared(name, "different", (f"{sizes[0]}, now {sizes[1]}",))
    faults = [
        f"{column}, line {line}: {a!r}, now {b!r}"
        for column in before.columns
        for line, (a, b) in enumerate(zip(before[column], now[column], strict=True), start=2)
        if a != b and not _close(_number(a), _number(b), tolerance)
    ]
    return Compared(name, "different" if faults else "equal", some(faults))


def compare_json(
    name: str, old: Path, new: Path, tolerance: float, *, ignore: frozenset[str] = frozenset()
) -> Compared:
    """Two JSON files, value by value; what stands under a key of `ignore` may differ."""
    if old.read_bytes() == new.read_bytes():
        return Compared(name, "identical")
    faults = list(json_faults(run_folder.read_json(old), run_folder.read_json(new), tolerance, ignore))
    return Compared(name, "different" if faults else "equal", some(faults))


def json_faults(
    old: Any, new: Any, tolerance: float, ignore: frozenset[str] = frozenset(), where: str = ""
) -> Iterator[str]:
    """What two JSON values have otherwise, one text per place; `where` stands before each."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if key in ignore:
                continue
            if key not in old or key not in new:
                yield f"{where}{key}: only {'now' if key in new else 'before'}"
            else:
                yield from json_faults(old[key], new[key], tolerance, ignore, f"{where}{key}.")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from json_faults(a, b, tolerance, ignore, f"{where}{number}.")
    elif old != new and not _close(_plain_number(old), _plain_number(new), tolerance):
        yield f"{where.rstrip('.') or 'the whole'}: {_short(old)}, now {_short(new)}"


def _plain_number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _close(old: float | None, new: float | None, tolerance: float) -> bool:
    if old is None or new is None:
        return False
    return math.isclose(old, new, rel_tol=tolerance, abs_tol=tolerance) or (math.isnan(old) and math.isnan(new))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def some(faults: list[str]) -> tuple[str, ...]:
    """The first of many faults, and how many there are."""
    more = [f"... ({len(faults)} differences in all)"] if len(faults) > _SHOWN else []
    return (*faults[:_SHOWN], *more)


def check_tolerance(tolerance: float | None, default: float) -> float:
    """The tolerance, or its default.

    Raises:
        BadInput: not from 0 to below 1, so that everything or nothing would be equal
    """
    if tolerance is None:
        return default
    if not 0 <= tolerance < 1:
        raise BadInput(f"--tolerance {tolerance:g} is not valid; expected 0 or more and below 1, e.g. {default:g}")
    return tolerance
