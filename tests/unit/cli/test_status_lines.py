"""What `pagestore status` says of the page server's upkeep."""

from __future__ import annotations

from pagestore.cli.running import _upkeep
from pagestore.installation.status import _upkeep as fields_of
from pagestore.v1 import page_pb2 as pb


def test_layers_by_level_and_both_amplifications_are_said() -> None:
    upkeep = pb.Upkeep(
        wal_bytes=100_000_000,
        flushed_bytes=90_000_000,
        merged_bytes=50_000_000,
        imaged_bytes=10_000_000,
        deepest_records=7,
        level_bytes=[14_000_000, 0, 30_000_000],
        image_bytes=66_000_000,
        dead_bytes=10_000_000,
    )
    assert _upkeep(fields_of(upkeep)).splitlines() == [
        "1.5 bytes written to files for each of WAL, 7 records applied by a read at most",
        "layers in use: 13.4 MiB flushed, 28.6 MiB merged 2 ×, 62.9 MiB images;"
        " 1.10 × of what is read",
    ]


def test_before_anything_was_written_nothing_is_said() -> None:
    assert _upkeep(fields_of(pb.Upkeep())) == ""
