"""Tenants: who there is, and that each keeps within its own quota without harming others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pagestore.client.points import AtCheckpoint, Head
from pagestore.control.records import Quota
from pagestore.control.tenants import BYTES_SECONDS, Tenants
from pagestore.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    PagestoreError,
    ResourceExhausted,
    Unavailable,
)
from pagestore.ids import DEFAULT_TENANT, TenantId, TimelineId
from tests.unit.control.fakes import FIRST_LSN, TENANT, Log, Plane, play, put_template
from tests.unit.control.test_state import database


async def add(world: Plane, name: str, **quota: int) -> TenantId:
    async def make_template(tenant: TenantId) -> None:
        timeline = TimelineId(name.encode().ljust(16))
        world.logs.timelines[timeline] = Log(None, FIRST_LSN)
        world.wal.known.add(timeline)
        put_template(world.state, timeline, tenant)

    record, created = await world.tenants.add(name, Quota(**quota), make_template)
    assert created
    return record.tenant


def test_a_tenant_is_made_once_and_removed_when_it_is_empty(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        acme = await add(world, "acme")
        view = world.state.view()
        assert [item.name for item in view.tenants()] == ["default", "acme"]
        assert view.known_tenant("acme") == view.known_tenant(acme)
        with pytest.raises(AlreadyExists):
            await add(world, "acme")
        with pytest.raises(InvalidInput):
            await add(world, "not/one")
        await world.plane.databases.create(acme, "app")
        with pytest.raises(FailedPrecondition, match="1 databases"):
            world.tenants.remove("acme")
        await world.plane.databases.remove(acme, "app")
        assert world.tenants.remove("acme")
        await world.plane.collect()
        assert not world.tenants.remove("acme", if_exists=True)
        with pytest.raises(NotFound):
            world.tenants.known(acme)
        assert world.wal.known == world.live(), "what its databases began as is gone"
        with pytest.raises(FailedPrecondition):
            world.tenants.remove("default")

    play(tmp_path, story)


def test_one_whose_template_cannot_be_made_is_not_there(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        async def fails(tenant: TenantId) -> None:
            raise Unavailable("POSTGRES_FAILED", "no initdb")

        with pytest.raises(Unavailable):
            await world.tenants.add("acme", Quota(), fails)
        assert world.state.view().tenant("acme") is None

    play(tmp_path, story)


def test_a_database_too_many_is_refused_with_the_figures(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        databases = world.plane.databases
        acme = await add(world, "acme", databases=2)
        await databases.create(acme, "one")
        await databases.branch(acme, "one", "two", Head())
        for verb in (
            lambda: databases.create(acme, "three"),
            lambda: databases.branch(acme, "one", "three", Head()),
            lambda: databases.begin_import(acme, "three"),
        ):
            with pytest.raises(ResourceExhausted, match="has 2 databases, and may have 2") as over:
                await verb()
            assert over.value.reason == "TENANT_DATABASES"
        for name in ("one", "two", "three"):
            await databases.create(TENANT, name)
        assert (await databases.create(acme, "one", if_not_exists=True))[1] is False
        await databases.remove(acme, "two")
        await databases.create(acme, "three")
        world.tenants.set_quota("acme", lambda quota: Quota())
        await databases.create(acme, "four")

    play(tmp_path, story)


def test_of_two_at_once_one_is_too_many_and_leaves_nothing(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        acme = await add(world, "acme", databases=1)
        made = await asyncio.gather(
            *(world.plane.databases.create(acme, name) for name in ("one", "two", "three")),
            return_exceptions=True,
        )
        assert sum(isinstance(item, ResourceExhausted) for item in made) == 2
        await world.settled()
        assert world.state.view().count_databases(acme) == 1
        assert world.state.view().unsettled() == []
        assert world.computes.awake(acme) == 1

    play(tmp_path, story)


def test_one_awake_too_many_is_refused_and_nobody_else_is(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        databases = world.plane.databases
        acme = await add(world, "acme", awake=2)
        for name in ("one", "two"):
            await databases.create(acme, name)
        await databases.branch(acme, "one", "three", Head())
        with pytest.raises(ResourceExhausted, match="2 awake databases") as over:
            await databases.wake(acme, "three")
        assert over.value.reason == "TENANT_AWAKE"
        await databases.create(TENANT, "app")
        await databases.wake(acme, "one")
        await world.plane.past.checkpoint(acme, "one", "c")
        await world.plane.past.restore(acme, "one", AtCheckpoint("c"))
        await databases.stop(acme, "two")
        together = await asyncio.gather(
            databases.wake(acme, "two"), databases.wake(acme, "three"), return_exceptions=True
        )
        assert sum(isinstance(item, PagestoreError) for item in together) == 1
        assert world.computes.awake(acme) == 2

    play(tmp_path, story)


def test_over_its_bytes_a_tenant_makes_and_wakes_nothing_more(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        databases = world.plane.databases
        acme = await add(world, "acme", own_bytes=1000)
        await databases.create(acme, "one")
        await databases.create(acme, "two")
        await databases.stop(acme, "two")
        world.pages.bytes = 1000
        await asyncio.sleep(BYTES_SECONDS)
        for verb in (lambda: databases.create(acme, "three"), lambda: databases.wake(acme, "two")):
            with pytest.raises(ResourceExhausted, match="bytes of its own") as over:
                await verb()
            assert over.value.reason == "TENANT_BYTES"
        assert world.computes.running() == 1, "what runs goes on"
        running = world.launcher.started[0]
        await world.plane.past.checkpoint(acme, "one", "c")
        with pytest.raises(ResourceExhausted):
            await world.plane.past.restore(acme, "one", AtCheckpoint("c"))
        assert running.alive, "also where it is to be moved"
        await databases.create(TENANT, "app")
        await databases.remove(acme, "two")
        world.pages.away = True
        await asyncio.sleep(BYTES_SECONDS)
        await databases.wake(acme, "one")
        world.pages.away, world.pages.bytes = False, 1
        await databases.create(acme, "three")

    play(tmp_path, story)


def test_the_template_is_nobodys_own(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        tenants = world.plane.tenants
        acme = await add(world, "acme")
        await world.plane.databases.create(acme, "one")
        timelines = len(world.logs.timelines)
        templates = len(world.state.view().templates(acme))
        assert templates == 1
        world.pages.bytes = 100
        await asyncio.sleep(BYTES_SECONDS)
        assert await tenants.own_bytes(acme) == 100 * (timelines - templates)

    play(tmp_path, story)


def test_what_no_database_names_is_told_apart(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        tenants, databases = world.plane.tenants, world.plane.databases
        acme = await add(world, "acme")
        await databases.create(acme, "one")
        await databases.branch(acme, "one", "two", Head())
        world.pages.bytes = 100
        others = len(world.logs.timelines) - len(world.state.view().templates(acme)) - 2
        assert await tenants.unlisted(acme) == (100 * others, 0)
        await databases.remove(acme, "one")
        assert await tenants.unlisted(acme) == (100 * others, 100)

    play(tmp_path, story)


def test_a_connection_string_names_a_tenants_database(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        acme = await add(world, "acme")
        records = {}
        for tenant in (TENANT, acme):
            records[tenant], _ = await world.plane.databases.create(tenant, "app")
        find = world.plane.places.find
        for target, tenant in (("app", TENANT), ("/acme/app", acme), ("/default/app", TENANT)):
            found = await find(target)
            assert found.place.id == f"{tenant}/{records[tenant].created_micros}"
            assert found.inner == "app"
            compute = await world.plane.places.start(found.place)
            assert compute.timeline == records[tenant].timeline
        assert (await find("/acme/app/other")).inner == "other"
        for target in ("/nobody/app", "/acme/nothing", "/acme", "/", "//app", "acme/app"):
            with pytest.raises(NotFound):
                await find(target)

    play(tmp_path, story)


def test_whoever_had_databases_before_tenants_were_entered_is_one(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        old = TenantId(b"o" * 16)
        with world.state.change() as change:
            change.put_database(database("app", tenant=old))
        tenants = Tenants(world.state, world.pages)
        assert tenants.known(old).name == "tenant-6f6f6f6f6f6f"
        assert tenants.known(DEFAULT_TENANT).name == "default"

    play(tmp_path, story)
