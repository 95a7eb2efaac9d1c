"""Where objects lie: a directory, or a service that obstore speaks to.

A backend does one request once. It raises what obstore raises; ``store`` says what that means.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import mmap
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from pagestore import durable
from pagestore.errors import InvalidInput
from pagestore.objects.environment import ALLOW_HTTP, OPTIONS

REQUEST_TIMEOUT = datetime.timedelta(seconds=120)
CONNECT_TIMEOUT = datetime.timedelta(seconds=5)
STALE_SECONDS = 86400.0
"""A file that is being made in a directory's store is whole, or abandoned, long before."""

IDENTITY = "store"
"""The object that says which store this is; all others stand beside it."""
RACES = "race/"
"""Below it are names that are made to see who may make them (race.py)."""

_SCHEMES = ("file", "s3", "gs", "az")
Data = bytes | mmap.mmap


class Object(NamedTuple):
    """``size`` in bytes, ``modified`` in Unix seconds."""

    name: str
    size: int
    modified: float


class Backend(Protocol):
    def make(self) -> None: ...
    def create(self, name: str, data: Data) -> None: ...
    def get(self, name: str) -> bytes: ...
    def get_range(self, name: str, offset: int, length: int) -> bytes: ...
    def size(self, name: str) -> int: ...
    def list(self, prefix: str) -> Iterator[Object]: ...
    def delete(self, names: Sequence[str]) -> None: ...
    def sweep(self, now: float) -> int: ...


def connect(
    url: str, environ: Mapping[str, str], timeout: datetime.timedelta = REQUEST_TIMEOUT
) -> Backend:
    """
    Raises:
        InvalidInput: OBJECT_STORE_URL
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise _not_a_url(url, f"it begins with none of {', '.join(_SCHEMES)}")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise _not_a_url(url, "credentials and options come from the environment")
    if parts.scheme == "file":
        if parts.netloc or not parts.path.strip("/"):
            raise _not_a_url(url, "a directory is file:///DIR")
        return Directory(Path(unquote(parts.path)))
    try:
        made = from_url(url, **_options(parts.scheme, environ, timeout))
    except Exception as error:
        raise _not_a_url(url, first_line(error)) from error
    return Service(lambda: made)


def first_line(error: BaseException) -> str:
    """What obstore says, without its trace."""
    lines = str(error).splitlines()
    return lines[0].strip() if lines else type(error).__name__


def _options(
    scheme: str, environ: Mapping[str, str], timeout: datetime.timedelta
) -> dict[str, Any]:
    config = {name.lower(): environ[name] for name in OPTIONS[scheme] if environ.get(name)}
    allow_http = environ.get(ALLOW_HTTP, "").lower() in ("1", "true", "yes")
    return {
        "config": config,
        "client_options": {
            "timeout": timeout,
            "connect_timeout": CONNECT_TIMEOUT,
            "allow_http": allow_http,
        },
        # One place retries, and knows then what an answer that was lost may mean.
        "retry_config": {"max_retries": 0},
    }


def _not_a_url(url: str, why: str) -> InvalidInput:
    shown = url.rpartition("@")[2] if "@" in url else url
    return InvalidInput(
        "OBJECT_STORE_URL",
        f"{shown} is not the URL of an object store: {why}.",
        "Give file:///DIR, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX.",
    )


class Service:
    """S3, GCS or Azure. Objects are sent in one request each, so that no parts are ever left.

    Args:
        connect: makes what obstore knows it by, when it is first asked.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect

    @cached_property
    def _store(self) -> Any:
        return self._connect()

    def make(self) -> None:
        """A bucket is made by whoever owns it."""

    def create(self, name: str, data: Data) -> None:
        obstore.put(self._store, name, data, mode="create", use_multipart=False)

    def get(self, name: str) -> bytes:
        return bytes(obstore.get(self._store, name).bytes())

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        try:
            return bytes(obstore.get_range(self._store, name, start=offset, length=length))
        except BaseError as error:
            # Each service has its own words for an offset behind the object's end.
            if "range" not in str(error).lower() or self.size(name) > offset:
                raise
            return b""

    def size(self, name: str) -> int:
        return obstore.head(self._store, name)["size"]

    def list(self, prefix: str) -> Iterator[Object]:
        for chunk in obstore.list(self._store, prefix=prefix):
            for found in chunk:
                yield Object(found["path"], found["size"], found["last_modified"].timestamp())

    def delete(self, names: Sequence[str]) -> None:
        try:
            obstore.delete(self._store, [*names])
        except FileNotFoundError:
            # Some say so of the first that is missing, and leave the rest.
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    obstore.delete(self._store, name)

    def sweep(self, now: float) -> int:
        return 0


class Directory(Service):
    """A directory of this machine, or one that is mounted. An object is a file, durable before
    it has its name, and its name before anybody is told.

    What is mounted goes and comes back, and what lies below the mount is another directory, which
    must get nothing meanwhile. So the directory is made when a store is first used, and not again;
    and an object is made, or deleted, only where the store's identity is, in that very one."""

    def __init__(self, root: Path) -> None:
        super().__init__(self._local)
        self._root = root

    def _local(self) -> Any:
        if not self._root.is_dir():
            raise FileNotFoundError(errno.ENOENT, "there is no such directory", str(self._root))
        return obstore.store.LocalStore(self._root)

    def make(self) -> None:
        self._make_directory(self._root)

    def create(self, name: str, data: Data) -> None:
        with self._opened(name) as root:
            path = root / name
            self._make_directory(path.parent)
            # obstore lists no name that ends so.
            temporary = path.with_name(f"{path.name}#{secrets.randbelow(1 << 48)}")
            try:
                durable.create(path, data, temporary)
            except FileExistsError as error:
                raise AlreadyExistsError(str(self._root / name)) from error

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[Path]:
        """The directory that is there now, whatever is mounted over it before this ends.

        Raises:
            OSError: it is not the store's.
        """
        try:
            descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError as error:
            # Not ENOENT, which says of an object that there is none.
            raise OSError(errno.ENXIO, "there is no such directory", str(self._root)) from error
        try:
            root = Path(f"/proc/self/fd/{descriptor}")
            if not (name == IDENTITY or name.startswith(RACES) or (root / IDENTITY).exists()):
                raise OSError(errno.ENXIO, "it has nothing of the store in it", str(self._root))
            yield root
        finally:
            os.close(descriptor)

    def _make_directory(self, directory: Path) -> None:
        if directory.is_dir():
            return
        self._make_directory(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)
        durable.sync_directory(directory.parent)

    def list(self, prefix: str) -> Iterator[Object]:
        with self._opened(IDENTITY):
            yield from sorted(super().list(prefix))

    def delete(self, names: Sequence[str]) -> None:
        with self._opened(names[0]) as root:
            for name in names:
                (root / name).unlink(missing_ok=True)
            for parent in {(root / name).parent for name in names}:
                self._remove_empty(parent, root)

    def _remove_empty(self, directory: Path, root: Path) -> None:
        while directory != root:
            try:
                directory.rmdir()
            except OSError:
                return
            directory = directory.parent

    def sweep(self, now: float) -> int:
        """Removes what was never made whole; how many."""
        found = [
            path
            for path in self._root.rglob("*#*")
            if path.is_file() and path.lstat().st_mtime < now - STALE_SECONDS
        ]
        for path in found:
            path.unlink(missing_ok=True)
        return len(found)
