"""The proxy beside PgBouncer in session mode and plain Postgres: bytes, logins, idleness, sleep.

Our proxy stands in a process of its own before one plain cluster, so that it alone is measured;
before it, and before PgBouncer, stand the same clients (native/bench/session_load.c, pgbench).
CPU is the proxy's process, all threads: on loaded cores it says more than the clock. What a whole
installation takes from asleep to awake is not here: the part ``compute`` measures starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from pagestore.bench import sessions
from pagestore.bench.gates import (
    BOUNCER,
    ONE_USE,
    Site,
    bouncer,
    bouncer_program,
    bouncer_version,
    lone_proxy,
    site,
)
from pagestore.bench.harness import OURS, PLAIN, Bench
from pagestore.bench.plain import transactions_a_second
from pagestore.bench.processes import cpu_nanoseconds
from pagestore.bench.report import Better, Target
from pagestore.bench.sessions import DATABASE, USER, Gate
from pagestore.bench.stack import resident_bytes, wait_until

PART = "proxy"
ASKING = (1, 100)
PREPARED = (16, 100)
CONNECTING = 8
"""Clients that connect at a time."""
IDLE = 10_000
IDLE_AT_A_TIME = 300
"""Sessions that have a backend while they log in."""
AT_ONCE = 200
COPIED = 1_000_000
"""Rows of 100 bytes, times the scale."""
TLS = (False, True)
WATCHED_SECONDS = 10.0
SLEEPY_SECONDS = 0.3
_WIDE = (
    "CREATE UNLOGGED TABLE wide AS SELECT number, repeat('x', 91) AS filler "
    "FROM generate_series(1000001, 1000000 + {rows}) AS number"
)


def run(bench: Bench) -> None:
    program = bouncer_program()
    bench.report.settings["pgbouncer"] = bouncer_version(program) if program else "not installed"
    if program is None:
        bench.report.remarks.append(
            "PgBouncer is not installed, so nothing stands beside the proxy but plain Postgres: "
            "apt-get install pgbouncer"
        )
    with site(bench) as found, ExitStack() as stack:
        gates = [found.plain]
        if program is not None:
            gates.append(stack.enter_context(bouncer(program, found)))
        gates.append(stack.enter_context(lone_proxy(found)))
        for tls in TLS:
            for clients in ASKING:
                _ask(bench, gates, clients, tls=tls)
        _prepared(found, gates)
        _copy(found, gates)
        if program is not None:
            gates[1] = stack.enter_context(bouncer(program, found, one_use=True))
        for tls in TLS:
            _connect(bench, gates, tls=tls)
    with site(bench) as found:
        found.cluster.stop()
        _idle(found)
        _asleep(found)


class _Turns:
    """Several values a round of each gate; the rounds are the harness's."""

    def __init__(self, bench: Bench, gates: list[Gate]) -> None:
        self._bench = bench
        self._gates = gates
        self._values: dict[tuple[str, str], list[float]] = {}

    def take(self, measure: Callable[[Gate], dict[str, float]]) -> None:
        def of(gate: Gate) -> float:
            for what, value in measure(gate).items():
                self._values.setdefault((gate.name, what), []).append(value)
            return 0.0

        self._bench.take_turns({gate.name: partial(of, gate) for gate in self._gates})

    def values(self, gate: str, what: str) -> list[float]:
        return self._values[gate, what][self._bench.settings.warmup :]

    def rows(
        self,
        case: str,
        what: str,
        unit: str,
        *,
        better: Better = "less",
        target: Target | None = None,
        relative_to: str = "",
    ) -> None:
        """A row of each gate; of CPU, of each proxy."""
        for gate in self._gates:
            if what == "cpu" and not gate.pid:
                continue
            ours = gate.name == OURS
            self._bench.row(
                *(PART, case, gate.name, unit, self.values(gate.name, what)),
                better=better,
                target=target if ours else None,
                relative_to=relative_to if ours and target else "",
            )


def _words(tls: bool) -> str:
    return "TLS" if tls else "plain"


def _clients(number: int) -> str:
    return f"{number} client{'s' if number > 1 else ''}"


def _ask(bench: Bench, gates: list[Gate], clients: int, *, tls: bool) -> None:
    def measure(gate: Gate) -> dict[str, float]:
        answers = sessions.ask(gate, clients, bench.settings.seconds, tls=tls)
        return {"p50": answers.p50_us, "cpu": answers.cpu_us}

    turns = _Turns(bench, gates)
    turns.take(measure)
    case = f"{_words(tls)}, {_clients(clients)}"
    # Who adds no more than another is not slower than it.
    target = Target(1.0)
    turns.rows(f"SELECT 1, p50, {case}", "p50", "µs", target=target, relative_to=BOUNCER)
    turns.rows(f"SELECT 1, proxy's CPU, {case}", "cpu", "µs")


def _prepared(found: Site, gates: list[Gate]) -> None:
    bench = found.bench
    found.load_pgbench(bench.settings.scale)
    for clients in PREPARED:

        def measure(gate: Gate, clients: int = clients) -> dict[str, float]:
            # Many clients take a moment to connect.
            seconds = max(bench.settings.seconds, 2 + clients / 10)
            return {"rate": transactions_a_second(gate.url, clients, seconds, "-S", "-n")}

        turns = _Turns(bench, gates)
        turns.take(measure)
        case = f"pgbench -S prepared, {_clients(clients)}"
        turns.rows(case, "rate", "tps", better="more", target=Target(1.0), relative_to=BOUNCER)


def _copy(found: Site, gates: list[Gate]) -> None:
    bench = found.bench
    rows = bench.settings.scale * COPIED
    found.cluster.sql(_WIDE.format(rows=rows), DATABASE)
    found.cluster.sql(f"GRANT SELECT ON wide TO {USER}", DATABASE)
    found.cluster.sql("VACUUM wide", DATABASE)
    for tls in TLS:

        def measure(gate: Gate, tls: bool = tls) -> dict[str, float]:
            with sessions.copying(gate, tls=tls) as held:
                held.read("SELECT 1")
                copied = held.read("COPY wide TO STDOUT")
                return {"speed": copied.speed, "cpu": copied.cpu}

        turns = _Turns(bench, gates)
        turns.take(measure)
        case = f"COPY TO of {rows / 1e7:g} GB, {_words(tls)}"
        turns.rows(case, "speed", "MB/s", better="more", target=Target(1.0), relative_to=BOUNCER)
        turns.rows(f"{case}, proxy's CPU", "cpu", "ms/GB")
    found.cluster.sql("DROP TABLE wide", DATABASE)


def _connect(bench: Bench, gates: list[Gate], *, tls: bool) -> None:
    def measure(gate: Gate) -> dict[str, float]:
        answers = sessions.connect(gate, CONNECTING, bench.settings.seconds, tls=tls)
        return {"rate": answers.a_second, "cpu": answers.cpu_us}

    turns = _Turns(bench, gates)
    turns.take(measure)
    case = f"connect, SELECT 1, close, {_words(tls)}"
    turns.rows(case, "rate", "/s", better="more", target=Target(0.9), relative_to=ONE_USE)
    turns.rows(f"{case}, proxy's CPU", "cpu", "µs")


def _idle(found: Site) -> None:
    """Sessions that were logged in and sleep: their database has no process."""
    bench = found.bench
    for tls in TLS:
        with (
            lone_proxy(found, owns=True, idle=SLEEPY_SECONDS) as gate,
            ExitStack() as stack,
        ):
            # As many as the target speaks of, however much data there is: descriptors are bounded.
            count = left = min(bench.settings.scale * IDLE // 10, IDLE)
            while left > 0:
                some = min(left, IDLE_AT_A_TIME)
                stack.enter_context(sessions.hold(gate, some, tls=tls))
                left -= some
                _wait_asleep(found)
            memory = resident_bytes(gate.pid) / 1e6
            began, clock = cpu_nanoseconds(gate.pid), time.monotonic()
            time.sleep(WATCHED_SECONDS)
            spent = (cpu_nanoseconds(gate.pid) - began) / 1e7 / (time.monotonic() - clock)
        case = f"{count:,} idle connections, {_words(tls)}"
        bench.row(PART, f"{case}, memory", OURS, "MB", [memory], target=Target(150))
        bench.row(PART, f"{case}, CPU", OURS, "% of a core", [spent], target=Target(0.5))


def _wait_asleep(found: Site) -> None:
    wait_until(lambda: not (found.cluster.data / "postmaster.pid").exists(), "sleep", 120)


def _asleep(found: Site) -> None:
    """From asleep to a row, where the start is a plain server's own."""
    bench, cluster = found.bench, found.cluster

    def plain() -> float:
        began = time.perf_counter()
        cluster.start()
        cluster.sql("SELECT 1", DATABASE)
        taken = (time.perf_counter() - began) * 1e3
        cluster.stop()
        return taken

    shares: list[float] = []
    with lone_proxy(found, owns=True, idle=SLEEPY_SECONDS) as gate:

        def stranger() -> float:
            rows = sessions.once(gate, 1)
            _wait_asleep(found)
            return rows.last_ms

        def many() -> float:
            rows = sessions.once(gate, AT_ONCE)
            shares.append(rows.last_ms / rows.first_ms)
            _wait_asleep(found)
            return rows.last_ms

        with sessions.hold(gate, 1) as held:

            def idle() -> float:
                rows = held.ask()
                _wait_asleep(found)
                return rows.last_ms

            _wait_asleep(found)
            session = f"{OURS}, an idle session"
            taken = bench.take_turns({PLAIN: plain, OURS: stranger, session: idle, "many": many})
    case = "asleep to first row"
    bench.row(PART, case, PLAIN, "ms", taken[PLAIN])
    bench.row(PART, case, OURS, "ms", taken[OURS], target=Target(1.2), relative_to=PLAIN)
    bench.row(PART, case, session, "ms", taken[session])
    more = [late - new for late, new in zip(taken[session], taken[OURS], strict=True)]
    bench.row(PART, "an idle session's first row beyond a wake", OURS, "ms", more, target=Target(5))
    bench.row(PART, f"{AT_ONCE} at once to a sleeping database, last", OURS, "ms", taken["many"])
    share = shares[bench.settings.warmup :]
    case = f"{AT_ONCE} at once, last against first"
    bench.row(PART, case, OURS, "×", share, target=Target(2.0))
