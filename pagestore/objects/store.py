"""An object store as its users see it: names, bytes, and errors that say what to do.

A request is tried a few times, with growing pauses, while what failed may pass by itself; what is
raised then as Unavailable may still pass, later. An answer can be lost after what was asked for
has been done. So a create that finds its very bytes under its name has made them; who must
know that it was he writes what nobody else would.
"""

from __future__ import annotations

import datetime
import mmap
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from obstore import exceptions

from pagestore.errors import (
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    PagestoreError,
    Unavailable,
)
from pagestore.objects.backends import (
    RACES,
    STALE_SECONDS,
    Backend,
    Data,
    Object,
    connect,
    first_line,
)
from pagestore.pauses import Pauses

T = TypeVar("T")

ATTEMPTS = 5
HASTY_ATTEMPTS, HASTY_TIMEOUT = 3, datetime.timedelta(seconds=10)
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
COMPARED_BYTES = 8 << 20
DELETED_TOGETHER = 1000


class ObjectStore:
    """
    Args:
        url: what users call it, in errors.
        sleep: waits so many seconds between attempts.
    """

    def __init__(
        self,
        url: str,
        backend: Backend,
        sleep: Callable[[float], object] = time.sleep,
        attempts: int = ATTEMPTS,
    ) -> None:
        self.url = url
        self.hasty = self
        """The same, for those who read and are waited for: it gives up within half a minute."""
        self._backend = backend
        self._sleep = sleep
        self._attempts = attempts

    @classmethod
    def open(cls, url: str, environ: Mapping[str, str]) -> ObjectStore:
        """Asks it nothing yet.

        Raises:
            InvalidInput: OBJECT_STORE_URL
        """
        made = cls(url, connect(url, environ))
        made.hasty = cls(url, connect(url, environ, HASTY_TIMEOUT), attempts=HASTY_ATTEMPTS)
        return made

    def make(self) -> None:
        """Makes the place where objects are to lie, where it is a directory that there is not yet.
        Only for whoever uses it first: one that is not there later may come back.

        Raises:
            Unavailable: OBJECT_STORE_UNAVAILABLE
        """
        self._try("", self._backend.make)

    def create(self, name: str, data: Data) -> None:
        """
        Raises:
            AlreadyExists: OBJECT_EXISTS: with other bytes.
            Unavailable: OBJECT_STORE_UNAVAILABLE; it may have been made, or may yet be.
        """
        try:
            self._try(name, lambda: self._backend.create(name, data))
        except AlreadyExists:
            if not self._has(name, memoryview(data)):
                raise

    def create_file(self, name: str, path: Path) -> None:
        """The bytes of a file that nobody changes, never all in memory. As `create`.

        Raises:
            OSError: the file cannot be read.
        """
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                self.create(name, b"")
            else:
                # Not closed: obstore may hold it a moment longer than the request.
                self.create(name, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def get(self, name: str) -> bytes:
        """
        Raises:
            NotFound: OBJECT_NOT_FOUND. Unavailable: OBJECT_STORE_UNAVAILABLE.
        """
        return self._try(name, lambda: self._backend.get(name))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """So many bytes, or fewer where the object ends. As `get`."""
        return self._try(name, lambda: self._backend.get_range(name, offset, length))

    def size(self, name: str) -> int:
        """Bytes. As `get`."""
        return self._try(name, lambda: self._backend.size(name))

    def exists(self, name: str) -> bool:
        """
        Raises:
            Unavailable: OBJECT_STORE_UNAVAILABLE
        """
        try:
            self.size(name)
        except NotFound:
            return False
        return True

    def list(self, prefix: str) -> Iterator[Object]:
        """Those below a name that ends with a slash, in the order of names.

        Raises:
            Unavailable: OBJECT_STORE_UNAVAILABLE
        """
        return iter(self._try(prefix, lambda: list(self._backend.list(prefix))))

    def named(self, prefix: str, form: re.Pattern[str]) -> Iterator[tuple[Object, tuple[str, ...]]]:
        """Of `list` those whose names behind the prefix are of this form, with its groups. What
        else somebody has laid there (a folder's mark, a copy) is not ours, and stays. Raises as
        `list`."""
        for found in self.list(prefix):
            match = form.fullmatch(found.name.removeprefix(prefix))
            if match is not None:
                yield found, match.groups()

    def delete(self, names: Iterable[str]) -> None:
        """Whether or not they are there.

        Raises:
            Unavailable: OBJECT_STORE_UNAVAILABLE; some may be gone.
        """
        left = list(names)
        while left:
            some, left = left[:DELETED_TOGETHER], left[DELETED_TOGETHER:]
            self._try(some[0], lambda some=some: self._backend.delete(some))  # type: ignore[misc]

    def sweep(self, now: float) -> int:
        """Removes what processes that ended early have left of uploads and of races; how many."""
        raced = [found.name for found in self.list(RACES) if found.modified < now - STALE_SECONDS]
        self.delete(raced)
        return len(raced) + self._backend.sweep(now)

    def _has(self, name: str, data: memoryview) -> bool:
        if self.size(name) != len(data):
            return False
        return all(
            self.get_range(name, begin, min(COMPARED_BYTES, len(data) - begin))
            == data[begin : begin + COMPARED_BYTES]
            for begin in range(0, len(data), COMPARED_BYTES)
        )

    def _try(self, name: str, request: Callable[[], T]) -> T:
        pauses = Pauses(FIRST_PAUSE, LONGEST_PAUSE)
        for attempt in range(1, self._attempts + 1):
            try:
                return request()
            except (exceptions.BaseError, OSError) as error:
                fault = self._meaning(name, error)
                if attempt == self._attempts or not isinstance(fault, Unavailable):
                    raise fault from error
            self._sleep(pauses.next())
        raise AssertionError("unreachable")

    def _meaning(self, name: str, error: Exception) -> PagestoreError:
        where = f"{name} in {self.url}"
        match error:
            case exceptions.AlreadyExistsError() | exceptions.PreconditionError():
                return AlreadyExists("OBJECT_EXISTS", f"There is an object {where} already.")
            case exceptions.NotFoundError() | FileNotFoundError():
                return NotFound("OBJECT_NOT_FOUND", f"There is no object {where}.")
            case (
                exceptions.PermissionDeniedError()
                | exceptions.UnauthenticatedError()
                | PermissionError()
            ):
                return FailedPrecondition(
                    "OBJECT_STORE_DENIED",
                    f"The object store does not let us at {where}: {first_line(error)}",
                    "Give credentials that may read, write, list and delete there, in the "
                    "environment.",
                )
            case exceptions.NotSupportedError():
                return FailedPrecondition(
                    "OBJECT_STORE_UNCONDITIONAL",
                    f"The object store cannot create {where} only where it is not there: "
                    f"{first_line(error)}",
                    "Use a store that knows conditional writes (If-None-Match).",
                )
        return Unavailable(
            "OBJECT_STORE_UNAVAILABLE",
            f"The object store does not answer for {where}: {first_line(error)}",
            "It is asked again by itself.",
        )
