"""An installation's beginning and end, for the command line, for programs and for tests.

:func:`prepare` makes the data directory, :func:`spawn_supervisor` starts what keeps the parts
running (or :func:`supervise` is it, in this process), :func:`wait_until_serving` waits, and
:func:`stop` ends everything in order.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from pagestore.client.addresses import is_near, tls_required
from pagestore.errors import DeadlineExceeded, FailedPrecondition, PagestoreError, Unavailable
from pagestore.installation.layout import ENDED_FOR_GOOD, Installation, lib_dir
from pagestore.installation.parts import orphans, running_part
from pagestore.installation.ports import check_free
from pagestore.postgres import majors

if TYPE_CHECKING:
    from pagestore.installation.supervisor import Supervisor

START_SECONDS = 180.0
STOP_SECONDS = 240.0
MAX_RESTARTS = 4
"""A part that dies this often in a row will not come up by itself."""
AGAIN = "Try again in a moment."


def prepare(
    installation: Installation, safekeepers: int | None = None, objects: str | None = None
) -> None:
    """Makes the data directory and checks what `up` needs.

    Args:
        safekeepers: how many a new installation shall have; one that exists must have as many.
        objects: the URL of the object store that it shall have.

    Raises:
        FailedPrecondition: what is missing, and how to get it.
    """
    from pagestore.installation import config, keys, ownership
    from pagestore.installation import objects as store

    lib_dir()
    if installation.recovering_file.exists():
        raise FailedPrecondition(
            "RECOVERY_UNFINISHED",
            f"`pagestore recover` into {installation.data} has not ended.",
            "Run it again: it begins anew.",
        )
    try:
        ownership.claim(installation.data)
        (installation.data / "log").mkdir(mode=0o700, exist_ok=True)
        keys.settle(installation.data)
    except OSError as error:
        raise FailedPrecondition(
            "DATA_DIR_UNUSABLE",
            f"Cannot use {installation.data}: {error.strerror}.",
            "Name another data directory: --data DIR or PAGESTORE_DATA.",
        ) from error
    if safekeepers is None:
        _refuse_lost_config(installation)
    config.write_first(installation.config_file, safekeepers or 1)
    ownership.close_to_others(installation.data)
    check_count(installation, safekeepers)
    _settle_proxy(installation)
    if (authority := installation.config.tls.authority) is not None:
        from pagestore.installation import certificates

        certificates.settle_authority(installation.data, authority)
    installation.settle_compute_dir()
    majors.latest_programs(installation.config.computes.postgres_bindir)
    _check_walls(installation)
    store.settle(installation, objects)


def _check_walls(installation: Installation) -> None:
    """
    Raises:
        FailedPrecondition: WALLS_FORBIDDEN.
        InvalidInput: INVALID_UIDS.
    """
    from pagestore.agent.users import range_of_uids
    from pagestore.compute import walls

    computes = installation.config.computes
    uids = range_of_uids(computes.uids)
    if computes.walls == walls.BUBBLEWRAP:
        walls.check(uids[0], network=installation.page_socket is None)


def _settle_proxy(installation: Installation) -> None:
    """Gives one to an installation of before there was a proxy."""
    from pagestore.installation import config

    there = installation.config
    if there.proxy is None:
        names = installation.part_names
        config.add_proxy(installation.config_file, [there.listen(name) for name in names])
        installation.forget_config()


def check_addresses(installation: Installation) -> None:
    """What a start would find out part by part, before anything is started.

    Raises:
        FailedPrecondition: ADDRESS_IN_USE, TLS_REQUIRED.
    """
    left = orphans(installation)
    for part in installation.part_names:
        # What other parts call it by; where clients of Postgres's come is the proxy's to judge.
        address = installation.listens(part)[-1]
        if not is_near(address) and installation.certificate is None:
            raise tls_required(address)
        if part not in left:
            check_free(installation, part)


def _refuse_lost_config(installation: Installation) -> None:
    """One safekeeper, which a new file names, would know nothing of the WAL that these have."""
    there = sorted(path.name for path in installation.data.glob("safekeeper-*") if path.is_dir())
    if there and not installation.config_file.exists():
        raise FailedPrecondition(
            "CONFIG_MISSING",
            f"{installation.config_file} is missing, but there are {', '.join(there)}.",
            f"Put it back; or, if they are numbered 1 to {len(there)} and all are here, "
            f"`pagestore up --safekeepers {len(there)}` writes it anew.",
        )


def check_count(installation: Installation, wanted: int | None) -> None:
    """
    Raises:
        FailedPrecondition: OTHER_SAFEKEEPERS: the installation has another number of them.
    """
    there = len(installation.config.staying)
    if wanted is not None and wanted != there:
        raise FailedPrecondition(
            "OTHER_SAFEKEEPERS",
            f"{installation.data} has {there} safekeeper{'s' if there > 1 else ''}, not {wanted}.",
            "`pagestore up`, and then `pagestore safekeepers --grow N` for more.",
        )


def spawn_supervisor(
    installation: Installation, owner: int | None = None
) -> subprocess.Popen[bytes]:
    """Starts the supervisor in a session of its own, so that it outlives the terminal.

    Args:
        owner: a process; the whole installation goes when that has ended, however it ends.
    """
    ephemeral = ["--while", str(owner)] if owner is not None else []
    with installation.open_log("supervisor") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pagestore.cli.main", "supervise", *ephemeral],
            env={**os.environ, "PAGESTORE_DATA": str(installation.data)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )


def supervise(installation: Installation, owner: int | None = None) -> None:
    """Is the supervisor, until SIGTERM or SIGINT.

    Args:
        owner: the process that an ephemeral installation is for. When it has ended, so do we, and
            what there is of the installation is removed.

    Raises:
        FailedPrecondition: ALREADY_RUNNING.
    """
    from pagestore.installation.supervisor import Supervisor

    lock = installation.take_lock()
    if lock is None:
        raise FailedPrecondition(
            "ALREADY_RUNNING",
            f"pagestore runs already on {installation.data}.",
            "`pagestore status` shows it; `pagestore down` stops it.",
        )
    with lock:
        if owner is None:
            asyncio.run(Supervisor(installation).run())
        elif asyncio.run(_while_there_is(owner, Supervisor(installation))):
            remove(installation)


async def _while_there_is(owner: int, supervisor: Supervisor) -> bool:
    """Whether it was the owner's end that ended it."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        # Of the process that has the number now, and of no later one.
        descriptor = os.pidfd_open(owner)
    except ProcessLookupError:
        return True

    def end() -> None:
        loop.remove_reader(descriptor)
        ended.set()
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        loop.add_reader(descriptor, end)
        await supervisor.run()
        return ended.is_set()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def remove(installation: Installation) -> None:
    """An ephemeral one that does not run."""
    shutil.rmtree(installation.compute_dir, ignore_errors=True)
    shutil.rmtree(installation.data, ignore_errors=True)


def wait_until_serving(
    installation: Installation,
    supervisor: subprocess.Popen[bytes] | None = None,
    seconds: float = START_SECONDS,
) -> None:
    """
    Args:
        supervisor: the one just started, so that its death is noticed.

    Raises:
        PagestoreError: PART_FAILED, with the end of its log.
        DeadlineExceeded: NOT_SERVING.
    """
    deadline = time.monotonic() + seconds
    missing = list(installation.part_names)
    while missing:
        died = supervisor is not None and supervisor.poll() is not None
        if died and installation.running_supervisor() is None:
            assert supervisor is not None
            raise _part_failed(installation, "supervisor", f"exit status {supervisor.returncode}")
        missing = [part for part in missing if not serves(installation, part)]
        for part in missing:
            process = running_part(installation, part)
            if process is not None and process.reason == "ADDRESS_IN_USE":
                check_free(installation, part)
            if process is not None and (
                process.reason == ENDED_FOR_GOOD or process.restarts >= MAX_RESTARTS
            ):
                raise _part_failed(installation, part, process.last_exit)
        if missing and time.monotonic() > deadline:
            raise DeadlineExceeded(
                "NOT_SERVING",
                f"Not serving after {seconds:.0f} s: {', '.join(missing)}.",
                f"See the logs in {installation.data / 'log'}.",
            )
        if missing:
            time.sleep(0.1)


def _part_failed(installation: Installation, part: str, why: str) -> PagestoreError:
    return PagestoreError(
        "PART_FAILED",
        f"The {part} does not start ({why}). Its log ends:\n{_last_words(installation, part)}",
        f"See {installation.log_file(part)}; addresses are set in {installation.config_file}. "
        "Then `pagestore down`, and `up` again.",
    )


def _last_words(installation: Installation, part: str) -> str:
    """What it said of its end, without the trace before it; else the last lines."""
    lines = installation.log_tail(part, 40).splitlines()
    said = [at for at, line in enumerate(lines) if line.startswith("error: ")]
    return "\n".join(lines[said[-1] :] if said else lines[-8:])


def serves(installation: Installation, part: str) -> bool:
    """Whether our own part answers, not another's at an address that ours could not get."""
    from pagestore.installation.health import is_serving

    if running_part(installation, part) is None:
        return False
    try:
        return is_serving(installation.address(part))
    except Unavailable:
        return False


def stop(
    installation: Installation, seconds: float = STOP_SECONDS, *, keep_proxy: bool = False
) -> bool:
    """Ends every database cleanly, then everything else; whether anything ran.

    Args:
        keep_proxy: it goes on, with its clients' sessions, until the next `up` adopts it.

    Raises:
        DeadlineExceeded: STILL_RUNNING.
        PagestoreError: PARTS_LEFT, COMPUTES_LEFT.
        PermissionError: it is another user's.
    """
    pid = installation.running_supervisor()
    if pid is None:
        was_running = _end_orphans(installation)
    else:
        _end_supervisor(installation, pid, seconds, keep_proxy)
        was_running = True
    # A supervisor may have been killed at it, too.
    _check_ended(installation, but={"proxy"} if keep_proxy else set())
    return was_running


def _end_orphans(installation: Installation) -> bool:
    from pagestore.installation.supervisor import Supervisor

    if not installation.config_file.exists():
        return False
    lock = installation.take_lock()
    if lock is None:
        raise Unavailable("STARTING", f"pagestore starts on {installation.data} just now.", AGAIN)

    async def end() -> bool:
        return await Supervisor(installation).end_orphans()

    with lock:
        return asyncio.run(end())


def _end_supervisor(installation: Installation, pid: int, seconds: float, keep_proxy: bool) -> None:
    os.kill(pid, signal.SIGUSR1 if keep_proxy else signal.SIGTERM)
    # One that is frozen takes no signal until it goes on.
    os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + seconds
    while installation.running_supervisor() is not None:
        if time.monotonic() > deadline:
            raise DeadlineExceeded(
                "STILL_RUNNING",
                f"The supervisor (process {pid}) has not ended in {seconds:.0f} s.",
                f"See {installation.log_file('supervisor')}.",
            )
        time.sleep(0.02)


def _check_ended(installation: Installation, but: set[str]) -> None:
    if not installation.config_file.exists():
        return
    found = orphans(installation)
    if parts := {part: left for part, left in found.items() if part not in but}:
        pids = [process.pid for left in parts.values() for process in left]
        raise PagestoreError(
            "PARTS_LEFT",
            f"Parts still run: {', '.join(parts)} (process {', '.join(map(str, pids))}).",
            "`pagestore down` again ends them; `pagestore up` takes them over.",
        )
    if left := installation.running_computes():
        raise PagestoreError(
            "COMPUTES_LEFT",
            f"Postgres processes still run: {', '.join(str(compute.pid) for compute in left)}.",
            "`pagestore up` takes them over; or end them with kill -INT.",
        )
