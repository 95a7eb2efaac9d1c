"""What a benchmark's report says of its rows."""

from __future__ import annotations

import json
from pathlib import Path

from pagestore.bench.report import Report, Row, Target, cells, number, target_text


def report(*rows: Row) -> Report:
    return Report({"rounds": 3, "warmup": 1}, rows=list(rows))


def test_a_target_is_held_against_the_median() -> None:
    row = Row("branch", "api", "pagestore", "ms", [9, 10, 400], "less", Target(10))
    assert report(row).met(row) is True
    row.values = [9, 10.1, 400]
    assert report(row).met(row) is False


def test_more_can_be_better() -> None:
    row = Row("getpage", "16 clients", "pagestore", "pages/s", [9_000], "more", Target(10_000))
    assert report(row).met(row) is False
    assert target_text(row) == "≥ 10,000"


def test_a_relative_target_is_held_against_the_other_system() -> None:
    ours = Row("c", "tps", "pagestore", "tps", [80], "more", Target(0.8), "plain Postgres")
    plain = Row("c", "tps", "plain Postgres", "tps", [100], "more")
    assert report(ours, plain).met(ours) is True
    plain.values = [101]
    assert report(ours, plain).met(ours) is False
    assert report(ours).met(ours) is None
    assert target_text(ours) == "≥ 0.8 × plain Postgres"


def test_rows_without_a_target_are_neither_met_nor_missed() -> None:
    row = Row("redo", "1 record", "pagestore", "µs a page", [5.0, 7.0, 6.0])
    assert cells(report(row), row) == [
        *("redo", "1 record", "pagestore", "6.00", "5.00 to 7.00", "µs a page", "", "")
    ]


def test_a_run_is_one_file_that_no_other_run_overwrites(tmp_path: Path) -> None:
    made = report(Row("redo", "1 record", "pagestore", "µs", [1.0, 2.0], "less", Target(1)))
    paths = {made.write(tmp_path / "new"), made.write(tmp_path / "new")}
    assert len(paths) == 2
    for path in paths:
        found = json.loads(path.read_text())
        assert found["rows"][0]["values"] == [1.0, 2.0]
        assert found["rows"][0]["met"] is False
        assert {"cores", "postgres", "load_before"} <= set(found["environment"])


def test_numbers_have_the_digits_that_matter() -> None:
    assert [number(x) for x in (1234567.0, 123.4, 12.34, 1.234)] == [
        *("1,234,567", "123", "12.3", "1.23")
    ]
