"""Bars of a run, one picture a part, from its JSON. Needs matplotlib: ``pagestore[bench]``."""

from __future__ import annotations

import importlib
import json
from itertools import groupby
from pathlib import Path
from typing import Any

from pagestore.errors import FailedPrecondition


def plot(results: Path) -> list[Path]:
    """Writes pictures beside a result file; their paths.

    Raises:
        FailedPrecondition: MATPLOTLIB_MISSING.
    """
    try:
        matplotlib = importlib.import_module("matplotlib")
        matplotlib.use("Agg")
        pyplot: Any = importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise FailedPrecondition(
            "MATPLOTLIB_MISSING", "Plots need matplotlib.", "pip install 'pagestore[bench]'"
        ) from error
    rows = json.loads(results.read_text())["rows"]
    made = []
    for part, of_part in groupby(rows, key=lambda row: row["part"]):
        units = [list(same) for _, same in groupby(of_part, key=lambda row: row["unit"])]
        units = _merged(units)
        heights = [1.2 + 0.3 * len(same) for same in units]
        figure, axes = pyplot.subplots(
            *(len(units), 1),
            figsize=(9, sum(heights)),
            squeeze=False,
            gridspec_kw={"height_ratios": heights},
        )
        for axis, same in zip(axes[:, 0], units, strict=True):
            _bars(axis, same)
        axes[0, 0].set_title(part)
        figure.tight_layout()
        path = results.with_name(f"{results.stem}-{part}.png")
        figure.savefig(path, dpi=110)
        pyplot.close(figure)
        made.append(path)
    return made


def _merged(groups: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """Rows of one unit together, in the order in which units first come."""
    by_unit: dict[str, list[dict[str, Any]]] = {}
    for group in groups:
        by_unit.setdefault(group[0]["unit"], []).extend(group)
    return list(by_unit.values())


WIDE = 100.0
"""Medians so many times each other are told apart on a logarithmic axis only."""


def _bars(axis: Any, rows: list[dict[str, Any]]) -> None:
    """Medians as bars, the range as whiskers."""
    labels = [f"{row['case']}: {row['system']}" for row in rows]
    medians = [row["median"] for row in rows]
    below = [row["median"] - row["least"] for row in rows]
    above = [row["most"] - row["median"] for row in rows]
    axis.barh(labels, medians, xerr=[below, above], height=0.6)
    axis.invert_yaxis()
    axis.margins(y=0.01)
    if min(medians) > 0 and max(medians) > WIDE * min(medians):
        axis.set_xscale("log")
    axis.set_xlabel(rows[0]["unit"])
