"""Tablespaces in place go aside for pg_upgrade, and come back into the new cluster."""

from __future__ import annotations

from pathlib import Path

from pagestore.agent.tablespaces import move_in, move_out
from pagestore.agent.upgrade import check_tree
from pagestore.pgformat.versions import POSTGRES_17, POSTGRES_18

BEFORE, AFTER = POSTGRES_17.tablespace_name, POSTGRES_18.tablespace_name


def clusters(root: Path) -> tuple[Path, Path, Path]:
    old, new, beside = root / "old", root / "new", root / "tablespaces"
    (old / "pg_tblspc/16385" / BEFORE / "5").mkdir(parents=True)
    (old / "pg_tblspc/16385" / BEFORE / "5/2619").write_text("old")
    (new / "pg_tblspc").mkdir(parents=True)
    return old, new, beside


def test_they_are_links_for_pg_upgrade_and_in_place_afterwards(tmp_path: Path) -> None:
    old, new, beside = clusters(tmp_path)
    move_out(old, beside, None)
    location = (old / "pg_tblspc/16385").readlink()
    assert (old / "pg_tblspc/16385" / BEFORE / "5/2619").read_text() == "old"
    # What pg_upgrade does: the same location, with a directory of the new major's.
    (location / AFTER / "5").mkdir(parents=True)
    (location / AFTER / "5/2619").write_text("new")
    (new / "pg_tblspc/16385").symlink_to(location)
    move_in(new, beside, POSTGRES_17)
    check_tree(new, None)
    assert (new / "pg_tblspc/16385" / AFTER / "5/2619").read_text() == "new"
    assert not (new / "pg_tblspc/16385" / BEFORE).exists()


def test_a_cluster_without_any_stays_as_it_is(tmp_path: Path) -> None:
    old, new, beside = clusters(tmp_path)
    for path in (old / "pg_tblspc/16385" / BEFORE / "5/2619",):
        path.unlink()
    (old / "pg_tblspc/16385" / BEFORE / "5").rmdir()
    (old / "pg_tblspc/16385" / BEFORE).rmdir()
    (old / "pg_tblspc/16385").rmdir()
    move_out(old, beside, None)
    assert not beside.exists()
    move_in(new, beside, POSTGRES_17)
    assert [*(new / "pg_tblspc").iterdir()] == []


def test_a_link_to_anywhere_else_is_let_be(tmp_path: Path) -> None:
    old, new, beside = clusters(tmp_path)
    move_out(old, beside, None)
    (tmp_path / "elsewhere" / AFTER).mkdir(parents=True)
    (new / "pg_tblspc/16385").symlink_to(tmp_path / "elsewhere")
    (new / "pg_tblspc/16386").symlink_to("/etc")
    move_in(new, beside, POSTGRES_17)
    assert (new / "pg_tblspc/16385").is_symlink()
    assert (new / "pg_tblspc/16386").is_symlink()
    assert (tmp_path / "elsewhere" / AFTER).exists()
