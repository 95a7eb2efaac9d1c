"""The command line itself: help, examples, exit codes, errors as text and as JSON."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import typer
from typer.testing import CliRunner

from pagestore import errors
from pagestore.cli import main
from pagestore.cli.main import app
from pagestore.cli.session import human_bytes, point_message
from pagestore.cli.settings import idle_limit
from pagestore.errors import InvalidInput, PagestoreError
from tests.schemas import all_schemas

DOCS = Path(__file__).resolve().parents[3] / "docs/cli.md"
COMMANDS = {
    name: command
    for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
    if not command.hidden
}
PARTS = {"pageserver", "safekeeper", "compute", "control", "proxy", "exporter"}
WITHOUT_JSON = {"psql", "completion", "man", "mcp", "console"} | PARTS
WITHOUT_DATA = {"bench", "inspect"}
"""The one measures an installation of its own, the other reads a file, whosever it is."""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_verb_has_help_and_a_documented_example(name: str) -> None:
    text = COMMANDS[name].help or ""
    assert re.search(rf"Example: .*pagestore {name}\b", text), text
    documented = DOCS.read_text()
    assert re.search(rf"^## `pagestore {name}[ `]", documented, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - WITHOUT_JSON))
def test_every_verb_answers_machines(name: str) -> None:
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert "--json" in options
    assert ("--data" in options) != (name in WITHOUT_DATA)


def test_every_verb_that_answers_machines_has_a_schema() -> None:
    schemas = all_schemas()
    answering = {name for name in COMMANDS if name not in WITHOUT_JSON}
    assert set(schemas) - {"common", "error"} == answering
    for name, schema in schemas.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        for shape in schema.get("anyOf", [schema]):
            for field, what in shape.get("properties", {}).items():
                assert what.get("description"), f"{name}: {field}"


def test_the_documented_verbs_exist() -> None:
    documented = re.findall(r"^## `pagestore (\w+)", DOCS.read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(COMMANDS)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (PagestoreError, 1),
        (errors.InvalidInput, 2),
        (errors.NotFound, 3),
        (errors.OutOfRange, 3),
        (errors.AlreadyExists, 4),
        (errors.FailedPrecondition, 4),
        (errors.Unavailable, 5),
        (errors.DeadlineExceeded, 5),
        (errors.ResourceExhausted, 6),
        (errors.DataLoss, 7),
        (errors.Unauthenticated, 8),
        (errors.PermissionDenied, 8),
    ],
)
def test_exit_codes_are_those_of_the_documentation(kind: type[PagestoreError], code: int) -> None:
    assert kind("REASON", "message").exit_code == code
    assert re.search(rf"^\| {code} \|", DOCS.read_text(), re.MULTILINE)


@pytest.mark.parametrize("verb", ["create app", "ls", "undo app", "url app", "restore app c"])
def test_without_a_running_service_the_way_out_is_named(verb: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*verb.split(), "--data", str(tmp_path)])
    assert done.exit_code == 5
    assert "error: pagestore is not running" in done.stderr
    assert "hint: Start it with `pagestore up`" in done.stderr
    assert done.stdout == ""


def test_errors_as_json(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["ls", "--json", "--data", str(tmp_path)])
    assert json.loads(done.stderr)["error"]["reason"] == "NOT_RUNNING"


def test_a_restore_without_a_point_is_a_usage_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["restore", "app", "--data", str(tmp_path)])
    assert done.exit_code == 2
    assert "needs one point" in done.stderr


def test_git_commits_are_resolved_here_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["checkpoint", "app", "c", "--git", "HEAD", "--data", "."])
    assert done.exit_code == 2
    assert "no commit of a git repository" in done.stderr


def test_down_and_status_of_nothing(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["down", "--data", str(tmp_path)]).exit_code == 0
    done = CliRunner().invoke(app, ["status", "--json", "--data", str(tmp_path)])
    assert done.exit_code == 5
    assert json.loads(done.stdout)["running"] is False


def test_points_as_messages() -> None:
    assert point_message(None) is None
    assert point_message("head") is None
    assert getattr(point_message("0/10"), "lsn") == 16  # noqa: B009
    assert getattr(point_message("before"), "checkpoint") == "before"  # noqa: B009


def test_bytes_for_people() -> None:
    assert [human_bytes(n) for n in (0, 1023, 1024, 5 << 20, 3 << 40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "5.0 MiB",
        "3.0 TiB",
    ]


@pytest.mark.parametrize("verb", ["create app --postgres", "upgrade app --to"])
@pytest.mark.parametrize("major", ["-1", "x", "99999999999999999999"])
def test_what_can_be_no_major_is_a_usage_error(verb: str, major: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*verb.split(), major, "--data", str(tmp_path)])
    assert (done.exit_code, done.stdout) == (2, "")
    assert major in done.stderr


def test_unknown_verbs_are_usage_errors() -> None:
    assert CliRunner().invoke(app, ["destroy"]).exit_code == 2


def test_every_verb_is_loaded_alone_when_it_is_typed() -> None:
    for name in COMMANDS:
        alone = typer.main.get_command(main.build([name, "--json"]))
        assert list(alone.commands) == [name]  # type: ignore[attr-defined]
    everything = typer.main.get_command(main.build(["no-such-verb"]))
    assert set(COMMANDS) < set(everything.commands)  # type: ignore[attr-defined]


def test_a_question_to_the_control_plane_loads_neither_numpy_nor_pydantic(tmp_path: Path) -> None:
    code = (
        "import sys; from pagestore.cli.main import build; from pagestore.cli import border\n"
        f"words = ['ls', '--data', {str(tmp_path)!r}]\n"
        "assert border.main(build(words), words) == 5\n"
        "import pagestore.client.control, pagestore.installation.awake\n"
        "slow = {'numpy', 'pydantic', 'pydantic_settings', 'rich', 'structlog', 'psycopg'}\n"
        "slow |= {'hashlib', 'random', 'pagestore.client.points', 'pagestore.v1.proxy_pb2_grpc'}\n"
        "sys.exit(', '.join(sorted(slow & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30.0), ("90", 90.0), ("5m", 300.0), ("1h", 3600.0), ("0.5s", 0.5),
     ("never", math.inf), ("default", None)],
)  # fmt: skip
def test_how_long_a_database_may_idle_is_read(text: str, seconds: float | None) -> None:
    assert idle_limit(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "1w", "1e3", "inf", "nan", "s", "1 s"])
def test_what_is_no_time_to_idle_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="30s"):
        idle_limit(text)
