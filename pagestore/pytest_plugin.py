"""pytest: a database a test, each a branch of one that your migrations made once a run.

::

    @pytest.fixture(scope="session")
    def pagestore_prepare():
        return migrate                    # called once a run with the URL of an empty database

    def test_it(pagestore_db):
        with pagestore_db.psycopg() as session: ...

A run has a store of its own, in a temporary directory, unless ``--pagestore=local`` takes the
installation of this machine; under pytest-xdist all workers share it. Who comes first prepares,
the others wait for a lock. The store goes with the process that the run belongs to, however that
ends; in a local installation a branch that was left goes by itself after an hour.

The branches of the next tests are made, and their servers started, while a test runs, and what a
test has used goes while the next one runs (sdk/ahead.py): so it waits for little but its session.

Nothing of pagestore is imported before a test asks for it: this is loaded by every pytest that
has pagestore installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pagestore.sdk import Client, Database
    from pagestore.sdk.blocking import Ahead

TTL = "1h"
PREPARED = "prepared"
_FAILED = pytest.StashKey[bool]()
_BEHIND = pytest.StashKey[int]()
"""How many tests will want a branch of their own after the one that runs, as far as is known."""
_RUN = pytest.StashKey[str]()
_KEPT = pytest.StashKey[list[str]]()
_TOLD = "pagestore_run"
_SECTION = "kept by pagestore"
_kept: list[str] = []
"""What is to be said at the end of the run."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pagestore")
    group.addoption(
        "--pagestore",
        choices=["ephemeral", "local"],
        default=None,
        help="A store that is gone afterwards (the default), or this machine's installation.",
    )
    group.addoption(
        "--pagestore-keep",
        choices=["none", "failed", "all"],
        default="none",
        help="Whose databases stay after the run, with their URLs in its report.",
    )


def pytest_configure(config: pytest.Config) -> None:
    told = getattr(config, "workerinput", {})
    config.stash[_RUN] = told.get(_TOLD) or secrets.token_hex(8)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """xdist's controller tells a worker what run it works for."""
    node.workerinput[_TOLD] = node.config.stash[_RUN]


def pytest_collection_finish(session: pytest.Session) -> None:
    session.stash[_BEHIND] = sum(map(_wants_its_own, session.items))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Only looks on."""
    behind = item.session.stash[_BEHIND] - _wants_its_own(item)
    item.session.stash[_BEHIND] = behind
    if hasattr(item.config, "workerinput"):  # the others are shared out as they come
        behind = int(_wants_its_own(nextitem))
    item.stash[_BEHIND] = behind


def _wants_its_own(item: pytest.Item | None) -> bool:
    return "pagestore_db" in getattr(item, "fixturenames", ())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    for node in item.listchain() if report.when == "teardown" else ():
        # A worker's reports are what its controller hears of it.
        report.sections += [(_SECTION, words) for words in node.stash.get(_KEPT, [])]
        node.stash[_KEPT] = []
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _kept.extend(words for title, words in report.sections if title == _SECTION)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _kept:
        terminalreporter.section("databases that were kept")
        for words in _kept:
            terminalreporter.write_line(words)
        _kept.clear()


def pytest_unconfigure(config: pytest.Config) -> None:
    """The run's place goes with it; only its owner knows that it is over."""
    place = _place_of(config)
    if hasattr(config, "workerinput") or not place.exists():
        return
    store = place / "store"
    if store.exists():
        from pagestore.sdk.opening import end_ephemeral

        end_ephemeral(store)
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="session")
def pagestore_prepare() -> Callable[[str], None]:
    """To be overridden: what brings an empty database, by its URL, to where every test begins."""
    return lambda url: None


@pytest.fixture(scope="session")
def pagestore_client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """Of the run's store."""
    from pagestore import sdk

    if _is_local(request.config):
        with sdk.connect() as client:
            yield client
        return
    from pagestore.sdk.opening import start_ephemeral

    place = _place(request.config)
    data = place / "store"
    with _locked(place):
        if not data.exists():
            start_ephemeral(data, _owner(request.config))
    with sdk.connect(data=data, start=False) as client:
        yield client


@pytest.fixture(scope="session")
def pagestore_template(
    request: pytest.FixtureRequest,
    pagestore_client: Client,
    pagestore_prepare: Callable[[str], None],
) -> str:
    """The name of the database that every test's is a branch of."""
    name = f"tests-{request.config.stash[_RUN]}"
    place = _place(request.config)
    done = place / PREPARED
    with _locked(place):
        if not done.exists():
            database = pagestore_client.create(name, ttl="1d")
            pagestore_prepare(database.url)
            pagestore_client.checkpoint(name, PREPARED)
            done.touch()
    return name


def _keep_if_told(request: pytest.FixtureRequest, database: Database) -> None:
    keep = request.config.getoption("--pagestore-keep")
    if keep == "all" or (keep == "failed" and _failed(request)):
        database.keep()
        words = f"{request.node.nodeid or 'session'}: {database.url}"
        request.node.stash.setdefault(_KEPT, []).append(words)


def _branch(request: pytest.FixtureRequest, client: Client, template: str) -> Iterator[Database]:
    with client.branch(template, at=PREPARED, ttl=TTL) as database:
        yield database
        _keep_if_told(request, database)


def _failed(request: pytest.FixtureRequest) -> bool:
    """A test of those that the database is for, or, where several share it, any before its end."""
    if request.scope == "function":
        return bool(request.node.stash.get(_FAILED, False))
    return bool(request.session.testsfailed)


@pytest.fixture(scope="session")
def _pagestore_ahead(pagestore_client: Client, pagestore_template: str) -> Iterator[Ahead]:
    """What gives each test its branch."""
    from pagestore.sdk.blocking import Ahead

    with Ahead(pagestore_client, pagestore_template, PREPARED, TTL) as ahead:
        yield ahead


@pytest.fixture
def pagestore_db(request: pytest.FixtureRequest, _pagestore_ahead: Ahead) -> Iterator[Database]:
    """A database of this test's own."""
    database = _pagestore_ahead.take(behind=request.node.stash[_BEHIND])
    try:
        yield database
        _keep_if_told(request, database)
    finally:
        _pagestore_ahead.let_go(database)


@pytest.fixture(scope="module")
def pagestore_module_db(
    request: pytest.FixtureRequest, pagestore_client: Client, pagestore_template: str
) -> Iterator[Database]:
    """One that the tests of a module share."""
    yield from _branch(request, pagestore_client, pagestore_template)


@pytest.fixture(scope="session")
def pagestore_session_db(
    request: pytest.FixtureRequest, pagestore_client: Client, pagestore_template: str
) -> Iterator[Database]:
    """One that all tests (of an xdist worker) share."""
    yield from _branch(request, pagestore_client, pagestore_template)


def _is_local(config: pytest.Config) -> bool:
    """What is kept has to be somewhere that stays."""
    chosen = config.getoption("--pagestore")
    keeps = config.getoption("--pagestore-keep") != "none"
    if chosen == "ephemeral" and keeps:
        raise pytest.UsageError("--pagestore-keep keeps nothing in a store that is ephemeral.")
    return chosen == "local" or (chosen is None and keeps)


def _owner(config: pytest.Config) -> int:
    """The process that the run belongs to: xdist's controller has started its workers."""
    return os.getppid() if hasattr(config, "workerinput") else os.getpid()


def _place_of(config: pytest.Config) -> Path:
    return Path(tempfile.gettempdir()) / f"pagestore-pytest-{config.stash[_RUN]}"


def _place(config: pytest.Config) -> Path:
    """The run's, which its workers share."""
    place = _place_of(config)
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o711)
        place.chmod(0o711)
    return place


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[None]:
    with (place / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
