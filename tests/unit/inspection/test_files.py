"""What a file says is shown, what of it does not hold is named, and no file does harm."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pagestore.control.storage import Storage
from pagestore.errors import InvalidInput, NotFound
from pagestore.inspection.files import inspect
from pagestore.postgres import remote_map
from pagestore.walservice import control_file, horizon
from pagestore.walservice.horizon import Horizon
from tests.unit.walservice.test_control_file import CONTROL, OWNER
from tests.unit.walservice.test_segments import SEGMENT, Log, write

UNIT = Path(__file__).parents[1]
STORE = UNIT / "timeline/store_2"
LAYER = next(STORE.rglob("000000000003.delta"))


def remote_map_of(path: Path) -> Path:
    lengths = {(1663, 5, 16384, 0): 12, (1663, 5, 16384, 2): 1}
    path.write_bytes(remote_map.build(remote_map.table_of(lengths)))
    return path


def a_control_file(path: Path) -> Path:
    path.write_bytes(control_file.encode(CONTROL, OWNER))
    return path


def a_horizon(path: Path) -> Path:
    path.write_bytes(horizon.encode(Horizon(0x2000000, {"pageserver": 0x3000000}), OWNER))
    return path


def test_a_layer_shows_its_frame_and_its_values() -> None:
    found = inspect(LAYER, 100)
    assert found.kind == "layer file"
    assert found.facts["layer_kind"] == "delta"
    assert found.facts["values"] == len(found.rows) == found.count == 6
    assert found.facts["timeline"] == LAYER.parent.name
    assert found.rows[0] == ("length of 1/2/1 main", "0/44D", "image", "8")
    assert found.rows[-1] == ("block 1 of 1/2/3 main", "0/453", "record", "13")
    assert len(inspect(LAYER, 2).rows) == 2


def test_a_layer_of_the_first_version_is_read() -> None:
    found = inspect(UNIT / "layers/version_1.delta", 100)
    assert (found.facts["format"], len(found.rows), found.damage) == (1, 2, [])


def test_a_catalog_shows_what_there_is() -> None:
    found = inspect(STORE / "catalog.lmdb", 100)
    assert found.kind == "catalog of a page server"
    assert found.facts["timeline entries"] == 7
    layers = [row for row in found.rows if row[0] == "layer"]
    assert len(layers) == found.facts["layer entries"] == 6
    assert layers[0][3].startswith("000000000001.image, level 0, 0/3E8 to 0/3E8, length of 1/2/1")
    assert inspect(STORE / "catalog.lmdb-generation", 1).facts["transaction"] == 13


def test_a_control_planes_state_shows_no_secret(tmp_path: Path) -> None:
    storage = Storage(tmp_path, ("meta", "databases"))
    with storage.writing() as txn:
        body = b'{"name": "app", "sealed_password": "AbCd", "timeline": "12", "idle": null}'
        txn.put("databases", bytes(15) + b"\1app", body)
    storage.close()
    found = inspect(tmp_path / "data.mdb", 100)
    assert found.kind == "state of a control plane"
    assert found.damage == []
    (row,) = [row for row in found.rows if row[0] == "databases"]
    assert row[1] == "00000000000000000000000000000001 app"
    assert '"name": "app"' in row[2]
    assert "AbCd" not in str(found.rows)


def test_a_safekeepers_files_are_shown(tmp_path: Path) -> None:
    control = inspect(a_control_file(tmp_path / "c"), 10)
    assert control.facts["term"] == 5
    assert control.facts["safekeeper"] == 3
    assert control.rows == [("3", "0/1000028"), ("5", "0/1002000")]
    assert "/run" not in str(control), "a conninfo may hold a password"
    said = inspect(a_horizon(tmp_path / "h"), 10)
    assert (said.facts["oldest_lsn"], said.rows) == ("0/2000000", [("pageserver", "0/3000000")])


def test_a_segment_shows_its_records(tmp_path: Path) -> None:
    log = Log(SEGMENT - 64, 100, 20000, 300)
    write(tmp_path, log)
    path = tmp_path / "000000010000000000000001"
    found = inspect(path, 10)
    assert (found.damage, found.count, found.facts["postgres"]) == ([], 2, 15)
    assert found.rows[0][1:3] == ("XLOG", "20")
    raw = bytearray(path.read_bytes())
    raw[log.ends[2].prev_record_lsn % SEGMENT + 5000] ^= 1
    path.write_bytes(raw)
    assert "CRC does not match" in inspect(path, 10).damage[0]


def test_a_remote_map_shows_its_forks(tmp_path: Path) -> None:
    found = inspect(remote_map_of(tmp_path / "pagestore.map"), 10)
    assert (found.damage, found.rows[0]) == ([], ("1663/5/16384 main", "12"))
    assert found.facts["remote_blocks"] == 13


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: shutil.copy(LAYER, path), id="layer"),
        pytest.param(a_control_file, id="control"),
        pytest.param(a_horizon, id="horizon"),
        pytest.param(
            lambda path: shutil.copy(STORE / "catalog.lmdb-generation", path), id="generation"
        ),
    ],
)
def test_every_flipped_byte_is_named(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "file"
    make(path)
    assert inspect(path, 10).damage == []
    whole = path.read_bytes()
    for at in range(8, len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
        assert inspect(path, 10).damage, at
    for length in range(8, len(whole)):
        path.write_bytes(whole[:length])
        assert inspect(path, 10).damage, length


def test_damaged_pages_of_a_catalog_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "catalog.lmdb"
    whole = (STORE / "catalog.lmdb").read_bytes()
    told = 0
    for at in range(24, len(whole), 37):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
        told += bool(inspect(path, 10).damage)
    assert told > 20, "what is in no page that counts is no damage"


def test_a_damaged_block_names_its_keys(tmp_path: Path) -> None:
    path = tmp_path / LAYER.name
    raw = bytearray(LAYER.read_bytes())
    raw[130] ^= 1
    path.write_bytes(raw)
    (told,) = inspect(path, 10).damage
    assert "length of 1/2/1 main to block 1 of 1/2/3 main" in told


def test_what_is_nobodys_is_refused(tmp_path: Path) -> None:
    stranger = tmp_path / "x"
    stranger.write_bytes(b"something else")
    with pytest.raises(InvalidInput, match="no kind that is known"):
        inspect(stranger, 10)
    with pytest.raises(NotFound):
        inspect(tmp_path, 10)
