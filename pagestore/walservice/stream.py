"""The thread that pulls WAL from one compute, and keeps trying.

One thread an attached compute. Each connection opens the log anew at its flush LSN, so that what
an earlier one left of an unfinished record is gone, and so is whatever a failed write or sync
may have left in the page cache: nothing behind a confirmed position is ever trusted again.

Whatever ends a connection, it is tried again with growing pauses, for as long as the compute is
attached: a compute that is away, a disk that is full, a write or sync that failed. After a failed
sync nobody knows what the disk has of what was written: it is never synced again and believed, but
cut, and written again as the compute sends it again. The compute's commits wait meanwhile, and the
status says for what.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable

import structlog

from pagestore import tasks
from pagestore._native import NativeError, WalReceiver, WalWriter
from pagestore.consensus.acceptor import Attachment, State, WalPosition
from pagestore.errors import PagestoreError
from pagestore.pauses import Pauses
from pagestore.walservice.compute_address import ComputeAddress
from pagestore.walservice.log import LogFiles

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 1.0
LONGEST_HOLD = 10.0
"""Seconds; whoever should have said that the compute listens may be gone."""
PROMPT_SECONDS, BUSY_SECONDS, LAZY_SECONDS = 0.002, 0.05, 0.25
"""News of advances are told at most this often: while somebody waits for them; while nobody does,
but much has come; and else. To tell costs as much as some commits, in each process that hears it.
The compute's confirmation never waits for it."""
MUCH_BYTES = 1 << 20

_log = structlog.get_logger(__name__)


class Stream:
    """Pulls for `state.attachment` from `state.position` on. Make it in the event loop.

    `on_advance` is called in the loop after the log has grown. `believe` says where the compute is:
    asked once, before the first connection, so that keys that change later end no stream. With
    `hold` it does not connect before `go`: whoever started the compute tells when it listens.
    """

    def __init__(
        self,
        files: LogFiles,
        state: State,
        name: str,
        on_advance: Callable[[], None],
        believe: Callable[[Attachment], ComputeAddress],
        *,
        hold: bool = False,
    ) -> None:
        assert state.attachment is not None
        self.attachment = state.attachment
        self.last_error = ""
        self._files = files
        self._system_id = state.system_id
        self._name = name
        self._position = state.position
        self._writer: WalWriter | None = None
        self._receiver: WalReceiver | None = None
        self._stopping = threading.Event()
        self._listening = threading.Event()
        if not hold:
            self._listening.set()
        self._on_advance = on_advance
        self._believe = believe
        self._address: ComputeAddress | None = None
        self._loop = asyncio.get_running_loop()
        self._news_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._timer: asyncio.TimerHandle | None = None
        self._told_at = 0.0
        self._told_lsn = state.position.flush_lsn
        self._loop.add_reader(self._news_fd, self._tell)
        self._thread = threading.Thread(target=self._run, name=f"wal-{name}", daemon=True)
        self._thread.start()

    @property
    def position(self) -> WalPosition:
        """How far the log is durable and confirmed."""
        writer = self._writer
        if writer is not None:
            with contextlib.suppress(NativeError):
                flush_lsn, prev_record_lsn, _ = writer.position
                self._position = max(self._position, WalPosition(flush_lsn, prev_record_lsn))
        return self._position

    @property
    def receiving(self) -> bool:
        receiver = self._receiver
        return receiver is not None and receiver.streaming

    async def stop(self) -> WalPosition:
        """Ends the stream; after this nothing is confirmed. Returns the final position."""
        self._stopping.set()
        self._listening.set()
        receiver = self._receiver
        if receiver is not None:
            receiver.stop()
        await asyncio.to_thread(self._thread.join)
        if self._news_fd >= 0:
            self._loop.remove_reader(self._news_fd)
            os.close(self._news_fd)
            self._news_fd = -1
        if self._timer is not None:
            self._timer.cancel()
        return self._position

    def go(self) -> None:
        """The compute listens."""
        self._listening.set()

    def hasten(self) -> None:
        """Somebody waits for the next advance."""
        if self._timer is not None and self._timer.when() > self._told_at + PROMPT_SECONDS:
            self._timer.cancel()
            self._timer = self._loop.call_at(self._told_at + PROMPT_SECONDS, self._listen)

    def _tell(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._news_fd)
        self._loop.remove_reader(self._news_fd)
        self._told_at = self._loop.time()
        end = self.position.flush_lsn
        much = end - self._told_lsn > MUCH_BYTES
        self._told_lsn = end
        pause = BUSY_SECONDS if much else LAZY_SECONDS
        self._timer = self._loop.call_at(self._told_at + pause, self._listen)
        self._on_advance()

    def _listen(self) -> None:
        self._timer = None
        self._loop.add_reader(self._news_fd, self._tell)

    # In the thread

    def _run(self) -> None:
        try:
            self._pull()
        except BaseException as error:
            tasks.end_process(self._thread.name, error)

    def _pull(self) -> None:
        self._listening.wait(LONGEST_HOLD)
        pauses = Pauses(FIRST_PAUSE, LONGEST_PAUSE, spread=False)
        while not self._stopping.is_set():
            before = self._position
            try:
                self._connect_once()
                self._report("the compute ended the stream")
            except NativeError as error:
                self._report(error.args[1])
            except PagestoreError as error:
                self._report(error.message)
            if self._position != before:
                pauses.reset()
            self._stopping.wait(pauses.next())

    def _connect_once(self) -> None:
        writer = self._files.open(self._position)
        try:
            self._writer = writer
            address = self._address = self._address or self._believe(self.attachment)
            self._receiver = WalReceiver(
                writer,
                host=address.host,
                port=str(address.port),
                user=address.user,
                password=address.password,
                certificate=address.certificate,
                name=self._name,
                system_id=self._system_id,
                notify_fd=self._news_fd,
            )
            if not self._stopping.is_set():
                self._receiver.run()
        finally:
            self._position = self.position
            self._writer = None
            self._receiver = None
            writer.close()

    def _report(self, text: str) -> None:
        if self._stopping.is_set() or text == self.last_error:
            return
        self.last_error = text
        with contextlib.suppress(OSError):  # the log may be on the disk that is full
            _log.warning("stream", directory=str(self._files.directory), error=text)
