"""Whatever is typed, and whatever is sent: words and a reason, never a trace nor a class's name.

Every verb of the command line with arguments that can never be right; every method of every service
with bytes that are no message, and with messages whose fields hold anything. A running
installation answers them, and is whole afterwards.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pagestore.cli import border
from pagestore.cli.main import app
from pagestore.client.errors import from_rpc_error
from pagestore.ids import DEFAULT_TENANT
from pagestore.v1 import compute_pb2, control_pb2, page_pb2, wal_pb2
from tests import access
from tests.integration.installation import Whole, whole_pagestore

NEVER = re.compile(r"Traceback|<class|[╭─│╰]|\b[A-Z][A-Za-z]+(Error|Exception)\b")
REASON = re.compile(r"[A-Z][A-Z_]+")
NASTY = (
    "\udcff\udcfe",
    "",
    "a/b",
    "x" * 5000,
    "-",
    "..",
    " a",
    "/no/such/dir/there",
    "/etc/passwd",
    "\u202eevil",
    "0/FFFFFFFFFF",
)
"""No name of a database among them: nothing is made."""


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore() as running:
        running.run("create", "app")
        running.run("create", "still")
        running.run("stop", "still")
        yield running


@pytest.fixture(scope="module")
def still(whole: Whole) -> bytes:
    """The timeline of a database that is stopped."""
    return bytes.fromhex(whole.json("show", "still")["timeline_id"])


# The command line


class Typed:
    """What a command line in this process said, and ended with."""

    def __init__(self, whole: Whole, *words: str) -> None:
        out, err = io.StringIO(), io.StringIO()
        before = sys.stdout, sys.stderr, dict(os.environ)
        sys.stdout, sys.stderr = out, err
        os.environ |= whole.environment
        try:
            self.code = border.main(app, words)
        finally:
            sys.stdout, sys.stderr = before[:2]
            os.environ.clear()
            os.environ.update(before[2])
        self.out, self.err = out.getvalue(), err.getvalue()

    def refused(self) -> str:
        """The reason; asserts that it is a refusal as documented."""
        error = json.loads(self.err)["error"]
        assert self.code in range(1, 9), self.err
        assert not NEVER.search(self.out + self.err), self.err
        assert REASON.fullmatch(error["reason"])
        assert error["reason"] != "INTERNAL", self.err
        assert error["message"]
        return str(error["reason"])


VERBS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
TAKES_NAMES = sorted(
    name
    for name, verb in VERBS.items()
    if not verb.hidden and any(item.param_type_name == "argument" for item in verb.params)
)
RUNS_FOR_EVER = {"pageserver", "safekeeper", "compute", "control"}


@pytest.mark.parametrize("verb", sorted(set(TAKES_NAMES) - {"psql"}))
@pytest.mark.parametrize("nasty", NASTY, ids=range(len(NASTY)))
def test_a_verb_refuses_what_can_never_be_right(whole: Whole, verb: str, nasty: str) -> None:
    arguments = [item for item in VERBS[verb].params if item.param_type_name == "argument"]
    options = ["--from-pgdata", nasty] if verb == "import" else []
    words = [nasty] * len(arguments)
    done = Typed(whole, verb, "--json", *options, "--", *words)
    assert done.refused()


@pytest.mark.parametrize("verb", sorted(set(VERBS) - RUNS_FOR_EVER - {"help", "psql", "supervise"}))
def test_a_wrong_option_is_a_usage_error(whole: Whole, verb: str) -> None:
    done = Typed(whole, verb, "--json", "--no-such-option", "x")
    assert (done.refused(), done.code) == ("USAGE", 2)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["export", "app", "/no/such/dir/there"], "NO_SUCH_FILE"),
        (["export", "app", "/etc/passwd"], "INVALID_PATH"),
        (["export", "app", "/proc/nothing"], "NO_SUCH_FILE"),
        (["import", "new", "--from-pgdata", "/no/such"], "NOT_A_CLUSTER"),
        (["import", "new", "--from-pgdata", "/etc/passwd"], "NOT_A_CLUSTER"),
        (["create", "\udcff\udcfe"], "INVALID_TEXT"),
        (["branch", "app", "b", "--at", "9999-99-99T99:99"], "INVALID_TIME"),
        (["branch", "app", "b", "--at", "99999999999d ago"], "INVALID_TIME"),
        (["branch", "app", "b", "--at", "\udcff"], "INVALID_TEXT"),
        (["restore", "app", "FFFFFFFF/FFFFFFFF"], "LSN_BEYOND_HEAD"),
        (["verify", "app", "--against", "/no/such"], "NOT_A_CLUSTER"),
        (["verify", "app", "--replay", "--wal", "/no/such"], "NO_SUCH_FILE"),
        (["checkpoint", "app", "\udcff"], "INVALID_TEXT"),
        (["safekeepers", "--replace", "x"], "USAGE"),
        (["safekeepers", "--replace", "99"], "NO_SUCH_SAFEKEEPER"),
        (["safekeepers", "--replace", "1", "--with", "\udcff"], "INVALID_SETTING"),
        (["bench", "\udcff"], "NO_SUCH_PART"),
        (["up", "--data", "/etc/passwd"], "INVALID_PATH"),
        (["up", "--data", "/proc/no"], "DATA_DIR_UNUSABLE"),
        (["down", "--data", "/etc/passwd"], "INVALID_PATH"),
        (["status", "--data", "/etc/passwd"], "INVALID_PATH"),
        (["ls", "--data", "/etc/passwd"], "NOT_RUNNING"),
        (["no-such-verb"], "USAGE"),
        ([], "USAGE"),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_what_is_wrong_is_named(whole: Whole, words: list[str], reason: str) -> None:
    assert Typed(whole, *words, "--json").refused() == reason


def test_for_people_it_is_two_lines(whole: Whole) -> None:
    done = Typed(whole, "ls", "--bogus")
    assert done.err == "error: No such option: --bogus\nhint: `pagestore ls --help` shows how.\n"


def test_the_version_and_help(whole: Whole) -> None:
    assert re.fullmatch(r"pagestore \d+\.\d+\.\d+\n", Typed(whole, "--version").out)
    assert "List databases" in Typed(whole, "help", "ls").out
    assert "Everything" in Typed(whole, "help").out
    assert Typed(whole, "help", "nonsense").code == 2


def test_what_several_names_came_to_is_said(whole: Whole) -> None:
    for verb, word in (("stop", "stopped"), ("rm", "deleted")):
        whole.run("branch", "still", "gone", "--if-not-exists")
        done = Typed(whole, verb, "gone", "nope", "--json")
        assert done.refused() == "DATABASE_NOT_FOUND"
        said = json.loads(done.out)
        assert [item if verb == "rm" else item["name"] for item in said[word]] == ["gone"]
        assert [item["name"] for item in said["failed"]] == ["nope"]
    done = Typed(whole, "rm", "nope", "gone")
    assert done.code == 3
    assert done.err.splitlines()[0].startswith("deleted nothing")


def test_psql_takes_its_arguments_with_or_without_dashes(whole: Whole) -> None:
    for words in (
        ["-Atc", "SELECT 6 * 7"],
        ["--", "-Atc", "SELECT 6 * 7"],
        ["-At", "-c", "SELECT 42"],
    ):
        assert whole.run("psql", "app", *words).stdout == "42\n"
    done = whole.run("psql", "app", "select 1", check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[1] == "hint: To run SQL: pagestore psql app -c 'select 1'"


# The services


SERVICES = {
    "control": [control_pb2.DESCRIPTOR.services_by_name["ControlService"]],
    "compute": [compute_pb2.DESCRIPTOR.services_by_name["ComputeService"]],
    "pageserver": [
        page_pb2.DESCRIPTOR.services_by_name[name] for name in ("PageService", "TimelineService")
    ],
    "safekeeper": [wal_pb2.DESCRIPTOR.services_by_name["WalService"]],
}
METHODS = [
    (part, method)
    for part, services in SERVICES.items()
    for service in services
    for method in service.methods
]
NOT_SENT = {"StopComputes", "MakeTemplate"}
"""There are no wrong requests; nothing can be woken after the one, and the other takes seconds."""
LAST = ("DeleteTimeline", "DeleteDatabase", "UndoDatabase", "RestoreDatabase")
UNARY = sorted(
    (
        (part, method)
        for part, method in METHODS
        if not (method.client_streaming or method.server_streaming) and method.name not in NOT_SENT
    ),
    key=lambda item: item[1].name in LAST,
)
NAMES = ("app", "still", "a/b", "", "\0", "x" * 70, "-", "\u202e", "é" * 32)
NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}


def values(field: FieldDescriptor, ids: list[bytes]) -> st.SearchStrategy[Any]:
    if field.name in ("wait_ms", "linger_ms"):
        return st.sampled_from([0, 1])
    if field.cpp_type in NUMBERS:
        low, high = NUMBERS[field.cpp_type]
        return st.sampled_from([low, high, 0, 1, 1 << 24]) | st.integers(low, high)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return st.sampled_from(NAMES) if field.type == field.TYPE_STRING else st.sampled_from(ids)
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_ENUM:
            return st.sampled_from([0, 1, 2, 77])
        case FieldDescriptor.CPPTYPE_MESSAGE:
            return messages(field.message_type, ids)
    return st.floats()


def messages(descriptor: Any, ids: list[bytes]) -> st.SearchStrategy[Any]:
    """Messages with any of their fields, holding anything that the wire can carry."""
    made = message_factory.GetMessageClass(descriptor)

    def build(chosen: dict[str, Any]) -> Any:
        return made(**chosen)

    optional = {
        field.name: st.lists(values(field, ids), max_size=3)
        if field.is_repeated
        else values(field, ids)
        for field in descriptor.fields
        if not (field.message_type and field.message_type.GetOptions().map_entry)
    }
    return st.fixed_dictionaries({}, optional=optional).map(build)


def check_answer(error: grpc.RpcError, what: object) -> None:
    failure = from_rpc_error(error)
    words = f"{failure.code} {failure.reason} {failure}"
    assert error.code() not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), (what, words)
    assert not NEVER.search(words), (what, words)
    assert REASON.fullmatch(failure.reason)


@pytest.mark.parametrize(("part", "method"), METHODS, ids=[m.name for _, m in METHODS])
def test_bytes_that_are_no_message_are_refused(
    whole: Whole, part: str, method: MethodDescriptor
) -> None:
    kinds = ("unary", "stream")
    kind = f"{kinds[method.client_streaming]}_{kinds[method.server_streaming]}"
    with access.blocking_channel(whole.installation.address(part)) as channel:
        path = f"/{method.containing_service.full_name}/{method.name}"
        call = getattr(channel, kind)(path)
        junk = b"\xff\xff\xff"

        def send() -> list[bytes]:
            answer = call(iter([junk]) if method.client_streaming else junk, timeout=20)
            return list(answer) if method.server_streaming else [answer]

        if method.name == "GetPages":
            # Its errors travel within the stream, which others share.
            (raw,) = send()
            assert page_pb2.GetPagesResponse.FromString(raw).status.reason == "MALFORMED_REQUEST"
            return
        with pytest.raises(grpc.RpcError) as caught:
            send()
        check_answer(caught.value, method.name)
        assert from_rpc_error(caught.value).reason == "MALFORMED_REQUEST"


@pytest.mark.parametrize(("part", "method"), UNARY, ids=[m.name for _, m in UNARY])
def test_whatever_fields_hold_the_answer_has_a_reason(
    whole: Whole, still: bytes, part: str, method: MethodDescriptor
) -> None:
    ids = [b"", b"x", bytes(16), DEFAULT_TENANT.raw, still, b"\xff" * 16]
    answer = message_factory.GetMessageClass(method.output_type)
    with access.blocking_channel(whole.installation.address(part)) as channel:
        path = f"/{method.containing_service.full_name}/{method.name}"
        call = channel.unary_unary(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )

        @settings(
            max_examples=15,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        )
        @given(messages(method.input_type, ids))
        def send(request: Any) -> None:
            try:
                call(request, timeout=20)
            except grpc.RpcError as error:
                check_answer(error, request)

        send()


def test_times_at_the_end_of_all_numbers(whole: Whole) -> None:
    for micros in ((1 << 63) - 1, -(1 << 63)):
        at = control_pb2.Point(unix_micros=micros)
        request = control_pb2.ResolvePointRequest(
            tenant_id=DEFAULT_TENANT.raw, database="app", at=at
        )
        with access.blocking_channel(whole.installation.address("control")) as channel:
            call = channel.unary_unary(
                "/pagestore.v1.ControlService/ResolvePoint",
                request_serializer=lambda message: message.SerializeToString(),
            )
            with pytest.raises(grpc.RpcError) as caught:
                call(request, timeout=20)
            check_answer(caught.value, micros)


def test_everything_serves_afterwards(whole: Whole) -> None:
    assert whole.run("status").returncode == 0
    for part in ("control", "compute", "pageserver", "safekeeper"):
        log = Path(whole.installation.log_file(part)).read_text()
        assert "Traceback" not in log, log[-3000:]
