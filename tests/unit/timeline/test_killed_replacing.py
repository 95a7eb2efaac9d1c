"""A process that replaces layers is killed, again and again: each time all is there, or nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from pagestore.ids import DEFAULT_TENANT
from pagestore.layers.files import layer_name
from pagestore.timeline import Repository

from .model import HIGH, LOW, ROOT_LSN, ModelTimeline, compact, image, make_root, put, timeline_id
from .test_sweep import KEY, aside

KILLS = 6


def replace_for_ever(root: Path) -> None:
    """What the child does: a few small layers, then one in the place of all, said on stdout."""
    repository = Repository.open(root)
    timeline = repository.get(DEFAULT_TENANT, timeline_id(1))
    model = ModelTimeline(None, ROOT_LSN, 0, 0)
    for lsn in range(ROOT_LSN + 1, timeline.last_record_lsn + 1):
        model.own.put([image(KEY, lsn, b"%d" % lsn)])
    while True:
        for _ in range(3):
            lsn = timeline.last_record_lsn + 1
            entry = image(KEY, lsn, b"%d" % lsn)
            put(timeline, [entry], lsn)
            model.own.put([entry])
            timeline.freeze()
            timeline.flush()
            sys.stdout.write(f"{lsn}\n")
            sys.stdout.flush()
        compact(timeline, model)


def killed(root: Path, lines: int) -> int:
    """The last LSN that the child said was flushed, before it was killed in the midst of it."""
    child = subprocess.Popen(
        [sys.executable, "-m", __name__, str(root)],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    said = [int(child.stdout.readline()) for _ in range(lines)]
    child.send_signal(signal.SIGKILL)
    said += [int(line) for line in child.stdout.read().split()]
    child.wait()
    return said[-1]


def check(root: Path, flushed: int) -> None:
    repository = Repository.open(root)
    repository.sweep()
    timeline = repository.get(DEFAULT_TENANT, timeline_id(1))
    last = timeline.last_record_lsn
    assert last in (flushed, flushed + 1)  # killed between the transaction and the word
    listed = repository._store.catalog.layers(DEFAULT_TENANT, timeline_id(1))
    record = repository._store.catalog.timeline(DEFAULT_TENANT, timeline_id(1))
    assert record is not None
    assert record.layer_count == len(listed)
    assert record.layer_bytes == sum(entry.summary.bytes for _, entry in listed)
    assert record.next_number > max(number for number, _ in listed)
    names = {layer_name(number, entry.summary.kind) for number, entry in listed}
    assert {path.name for path in timeline.directory.iterdir()} == names
    for lsn in range(ROOT_LSN + 1, last + 1):
        chain = timeline.snapshot().chain(KEY.pack(), lsn)
        assert [value[3] for value in chain] == [b"%d" % lsn]
    assert timeline.snapshot().scan(LOW, HIGH, last) == [(KEY.pack(), b"%d" % last)]
    repository.close()


def test_a_killed_replacement_is_whole_or_was_never_made(tmp_path: Path) -> None:
    repository = Repository.open(tmp_path)
    make_root(repository, 1, [image(KEY, ROOT_LSN, b"root")])
    repository.close()
    for kill in range(KILLS):
        check(tmp_path, killed(tmp_path, lines=3 + kill))
    # What was written and not named yet is aside: of one kill one file at most.
    assert len(aside(tmp_path)) <= KILLS
    assert all(content.startswith(b"PSLAYER") for content in aside(tmp_path))


if __name__ == "__main__":
    replace_for_ever(Path(sys.argv[1]))
