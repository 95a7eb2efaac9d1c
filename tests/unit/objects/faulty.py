"""Object stores that fail, lose answers, or stand still, at a request that a test chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from obstore.exceptions import AlreadyExistsError, GenericError

from pagestore.objects.backends import Data, Object
from pagestore.objects.store import ObjectStore


class Memory:
    """A backend in memory; `before` and `after` see each request with its number, from 1."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.requests = 0
        self.before: Callable[[int, str, str], object] = lambda number, verb, name: None
        self.after: Callable[[int, str, str], object] = lambda number, verb, name: None

    def make(self) -> None:
        """It is there."""

    def create(self, name: str, data: Data) -> None:
        number = self._begin("create", name)
        made = bytes(bytearray(data))
        if self.objects.setdefault(name, made) is not made:
            raise AlreadyExistsError(name)
        self.after(number, "create", name)

    def get(self, name: str) -> bytes:
        number = self._begin("get", name)
        found = self._found(name)
        self.after(number, "get", name)
        return found

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        return self.get(name)[offset : offset + length]

    def size(self, name: str) -> int:
        number = self._begin("size", name)
        found = len(self._found(name))
        self.after(number, "size", name)
        return found

    def list(self, prefix: str) -> Iterator[Object]:
        number = self._begin("list", prefix)
        found = [
            Object(name, len(data), 0.0)
            for name, data in sorted(self.objects.items())
            if name.startswith(prefix)
        ]
        self.after(number, "list", prefix)
        return iter(found)

    def delete(self, names: Sequence[str]) -> None:
        number = self._begin("delete", names[0])
        for name in names:
            self.objects.pop(name, None)
        self.after(number, "delete", names[0])

    def sweep(self, now: float) -> int:
        return 0

    def _begin(self, verb: str, name: str) -> int:
        self.requests += 1
        number = self.requests
        self.before(number, verb, name)
        return number

    def _found(self, name: str) -> bytes:
        if name not in self.objects:
            raise FileNotFoundError(name)
        return self.objects[name]


def faulty(url: str = "memory") -> tuple[ObjectStore, Memory, list[float]]:
    """A store, what is below it, and the pauses that it has made."""
    backend, pauses = Memory(), list[float]()
    return ObjectStore(url, backend, pauses.append), backend, pauses


def fail(number: int, verb: str, name: str) -> None:
    raise GenericError(f"503 for {verb} {name}")
