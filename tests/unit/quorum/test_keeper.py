"""How a running compute's safekeepers are looked after: who was away, who lost its disk, who is to
be replaced, and when the compute is over."""

from __future__ import annotations

import asyncio

import pytest

from pagestore.consensus.acceptor import Vote
from pagestore.consensus.members import Configuration, Member
from pagestore.postgres.slots import OUR_SLOTS
from pagestore.quorum.changing import STUCK_SECONDS
from pagestore.quorum.keeper import AMISS_SECONDS, WELL_SECONDS
from pagestore.quorum.safekeepers import ANSWER_SECONDS
from tests.unit.quorum.fake_quorum import KEY, FakeCompute, Quorum, play
from tests.unit.virtual_time import now, until

SOON = 5 * AMISS_SECONDS


async def running(quorum: Quorum, *numbers: int) -> FakeCompute:
    """A compute that has written, with its keeper, and everybody following it."""
    client = quorum.client(*(numbers or (1, 2, 3)))
    compute = await quorum.compute(client)
    quorum.keep(client, compute)
    await until(quorum.all_follow)
    assert compute.write()
    return compute


# Who was away


@pytest.mark.parametrize("how", ["away", "frozen"])
def test_one_that_was_away_is_brought_in_while_clients_write(how: str) -> None:
    async def story(quorum: Quorum) -> None:
        setattr(quorum[3], how, True)
        client = quorum.client(1, 2, 3)
        compute = await quorum.compute(client)
        quorum.keep(client, compute)
        for _ in range(50):
            assert compute.write()
            await asyncio.sleep(0.1)
        assert not quorum[3].follows()
        setattr(quorum[3], how, False)
        back = now()
        while not quorum.all_follow():
            assert compute.write()
            await asyncio.sleep(0.1)
        assert now() - back < SOON + ANSWER_SECONDS

    play(story)


def test_one_that_missed_a_term_takes_its_history_before_it_follows() -> None:
    async def story(quorum: Quorum) -> None:
        compute = await running(quorum)
        quorum[3].away = True
        assert compute.write()
        # The next compute starts without it.
        client = quorum.client(1, 2, 3)
        compute = await quorum.restart(client)
        quorum.keep(client, compute)
        assert compute.write()
        quorum[3].away = False
        await until(quorum.all_follow, SOON + ANSWER_SECONDS)
        histories = {item.timelines[KEY].history for item in quorum.safekeepers.values()}
        assert len(histories) == 1

    play(story)


def test_one_whose_stream_is_broken_has_a_moment_to_come_back_by_itself() -> None:
    async def story(quorum: Quorum) -> None:
        compute = await running(quorum)
        await asyncio.sleep(2 * WELL_SECONDS)
        quorum[3].broken = "connection reset"
        quorum[3].calls.clear()
        assert compute.write()
        await until(lambda: len(quorum[3].asked("get_status")) == 1, WELL_SECONDS + 1)
        await asyncio.sleep(AMISS_SECONDS / 2)
        assert not quorum[3].asked("detach_compute")
        quorum[3].broken = ""
        await asyncio.sleep(2 * WELL_SECONDS)
        assert not quorum[3].asked("detach_compute")
        quorum[3].calls.clear()
        quorum[3].broken = "requested WAL segment has already been removed"
        await until(lambda: len(quorum[3].asked("get_status")) == 1, WELL_SECONDS + 1)
        await asyncio.sleep(AMISS_SECONDS / 2)
        assert not quorum[3].asked("detach_compute")
        await until(lambda: bool(quorum[3].asked("detach_compute")), WELL_SECONDS + SOON)
        await until(quorum.all_follow, SOON)

    play(story)


def test_it_asks_seldom_while_all_is_well_and_often_while_not() -> None:
    async def story(quorum: Quorum) -> None:
        await running(quorum)
        await asyncio.sleep(2 * WELL_SECONDS)
        for away, pause in ((False, WELL_SECONDS), (True, AMISS_SECONDS)):
            quorum[3].away = away
            await asyncio.sleep(2 * WELL_SECONDS)
            quorum[1].calls.clear()
            await asyncio.sleep(20 * pause)
            assert len(quorum[1].asked("get_status")) == pytest.approx(20, abs=2)

    play(story)


def test_what_is_amiss_is_said_as_long_as_it_is() -> None:
    async def story(quorum: Quorum) -> None:
        client = quorum.client(1, 2, 3)
        compute = await quorum.compute(client)
        keeper, task = quorum.keep(client, compute)
        await until(quorum.all_follow)
        compute.rule_fails = OSError("No space left on device")
        quorum[2].lose_disk()
        await until(lambda: "No space left" in keeper.complaint, WELL_SECONDS + SOON)
        assert not task.done()
        compute.rule_fails = None
        await until(lambda: keeper.complaint == "", SOON)
        await until(quorum.all_follow, SOON)

    play(story)


# Who is somebody else


def test_one_that_lost_its_disk_comes_back_as_another_member() -> None:
    async def story(quorum: Quorum) -> None:
        compute = await running(quorum)
        quorum[2].lose_disk()
        assert compute.write()
        await until(lambda: Member(2) not in quorum.configuration().everyone, WELL_SECONDS + SOON)
        await until(quorum.all_follow, SOON)
        assert quorum.numbers() == [1, 2, 3]
        assert "sk2," not in compute.rules[-1]
        quorum[1].away = True
        assert compute.write()

    play(story)


def test_a_member_is_replaced_and_forgets_the_timeline() -> None:
    async def story(quorum: Quorum) -> None:
        compute = await running(quorum)
        client = quorum.client(1, 2, 4)
        quorum.keep(client, compute)
        while quorum.numbers() != [1, 2, 4] or not quorum.all_follow():
            assert compute.write()
            await asyncio.sleep(0.05)
        await until(lambda: not quorum[3].timelines, SOON)
        quorum[1].away = True
        assert compute.write()

    play(story, (1, 2, 3, 4))


def test_one_safekeeper_becomes_three() -> None:
    async def story(quorum: Quorum) -> None:
        compute = await running(quorum, 1)
        client = quorum.client(1, 2, 3)
        quorum.keep(client, compute)
        await until(lambda: quorum.numbers() == [1, 2, 3] and quorum.all_follow(), 2 * SOON)
        quorum[1].away = True
        assert compute.write()

    play(story)


def test_the_compute_goes_by_a_rule_only_when_a_majority_has_stored_what_it_is_of() -> None:
    async def story(quorum: Quorum) -> None:
        compute = await running(quorum)
        seen: list[Configuration] = []

        def look(rule: str) -> None:
            configuration = quorum.configuration()
            assert rule == configuration.standby_names
            assert quorum.stored(configuration)
            seen.append(configuration)

        compute.on_rule, before = look, quorum.configuration()
        quorum.keep(quorum.client(1, 2, 4), compute)
        await until(lambda: quorum.numbers() == [1, 2, 4] and quorum.all_follow(), 2 * SOON)
        assert [item.joint for item in seen] == [True, False]
        joint, after = seen
        assert (joint.members, joint.joining) == (before.members, after.members)
        assert before.generation < joint.generation < after.generation

    play(story, (1, 2, 3, 4))


def test_a_newcomer_has_the_whole_log_before_anybody_counts_on_it() -> None:
    async def story(quorum: Quorum) -> None:
        compute = await running(quorum)
        for _ in range(20):
            assert compute.write()
        committed = compute.told

        def look(rule: str) -> None:
            if quorum.configuration().joint:
                assert quorum[4].timelines[KEY].position.flush_lsn >= committed
                assert quorum[4].follows()

        compute.on_rule = look
        quorum.keep(quorum.client(1, 2, 4), compute)
        await until(lambda: quorum.numbers() == [1, 2, 4] and quorum.all_follow(), 2 * SOON)

    play(story, (1, 2, 3, 4))


def test_the_old_ones_are_let_go_when_a_majority_of_the_new_has_what_was_acknowledged() -> None:
    async def story(quorum: Quorum) -> None:
        compute = await running(quorum)

        def fall_behind(rule: str) -> None:
            if quorum.configuration().joint:
                quorum[2].lags = quorum[4].lags = True
                assert compute.write()

        compute.on_rule = fall_behind
        quorum.keep(quorum.client(1, 2, 4), compute)
        await until(lambda: quorum[4].lags, 2 * SOON)
        await asyncio.sleep(2 * SOON)
        assert quorum.numbers() == [1, 2, 3, 4]
        quorum[4].lags = False
        quorum.flow(KEY)
        await until(lambda: quorum.numbers() == [1, 2, 4], SOON)

    play(story, (1, 2, 3, 4))


def test_a_change_waits_for_a_newcomer_that_is_away_and_the_old_ones_go_on() -> None:
    async def story(quorum: Quorum) -> None:
        compute = await running(quorum)
        quorum[4].away = True
        keeper, _ = quorum.keep(quorum.client(1, 2, 4), compute)
        await until(lambda: "waiting for safekeeper 4" in keeper.complaint, STUCK_SECONDS + SOON)
        assert quorum.numbers() == [1, 2, 3]
        assert not quorum.configuration().joint
        assert compute.write()
        quorum[4].away = False
        await until(lambda: quorum.numbers() == [1, 2, 4] and quorum.all_follow(), STUCK_SECONDS)

    play(story, (1, 2, 3, 4))


def test_one_that_refuses_is_asked_with_pauses() -> None:
    async def story(quorum: Quorum) -> None:
        compute = await running(quorum)
        quorum[4].away = True
        quorum.keep(quorum.client(1, 2, 4), compute)
        await until(lambda: bool(quorum[4].asked("admit")), SOON)
        quorum[4].calls.clear()
        await asyncio.sleep(10)
        assert 10 <= len(quorum[4].calls) <= 200

    play(story, (1, 2, 3, 4))


def test_without_a_majority_nothing_is_changed() -> None:
    async def story(quorum: Quorum) -> None:
        compute = await running(quorum)
        quorum[3].away = True
        quorum[2].lose_disk()
        before = list(compute.rules)
        await asyncio.sleep(2 * STUCK_SECONDS)
        assert compute.rules == before
        assert quorum[2].timelines == {}
        assert not quorum[2].asked("admit")
        assert not compute.write()
        quorum[3].away = False
        await until(quorum.all_follow, SOON + ANSWER_SECONDS)
        assert compute.write()

    play(story)


def test_a_change_that_broke_off_at_its_last_step_is_finished() -> None:
    async def story(quorum: Quorum) -> None:
        compute = await running(quorum)
        # The final configuration is established, and the compute still goes by the joint one.
        compute.rules.append("ANY 3 (sk1, sk2, sk3, sk4)")
        quorum.keep(quorum.client(1, 2, 3), compute)
        await until(quorum.all_follow, WELL_SECONDS + SOON)

    play(story)


@pytest.mark.parametrize("of", ["another number", "a lost disk"])
def test_a_change_goes_on_wherever_the_control_plane_was_killed(of: str) -> None:
    """It keeps nothing: the next one finds with the safekeepers how far the change came."""
    wanted = (1, 2, 4) if of == "another number" else (1, 2, 3)
    whole: list[int] = []

    async def unbroken(quorum: Quorum) -> None:
        whole.append(await _changed(quorum, wanted, 0))

    play(unbroken, (1, 2, 3, 4))
    assert whole[0] > 15
    for at in range(1, whole[0]):

        async def broken(quorum: Quorum, at: int = at) -> None:
            await _changed(quorum, wanted, at)

        play(broken, (1, 2, 3, 4))


async def _changed(quorum: Quorum, wanted: tuple[int, ...], broken_off_at: int) -> int:
    """A change, broken off at a call and gone on with by another; how many calls it took."""
    compute = await running(quorum)
    began, broken = quorum.calls, asyncio.Event()
    if wanted == (1, 2, 3):
        quorum[3].lose_disk()

    def is_done() -> bool:
        changed = Member(3) not in quorum.configuration().everyone
        return changed and quorum.numbers() == [*wanted] and quorum.all_follow()

    def count(calls: int) -> None:
        if calls - began == broken_off_at:
            broken.set()

    quorum.on_call = count
    _, keeping = quorum.keep(quorum.client(*wanted), compute)
    done = asyncio.create_task(until(is_done, 3 * SOON))
    breaking = asyncio.create_task(broken.wait())
    await asyncio.wait([done, breaking], return_when=asyncio.FIRST_COMPLETED)
    keeping.cancel()
    await asyncio.wait([keeping])
    calls = quorum.calls - began
    if not done.done():
        assert compute.write()
        quorum.keep(quorum.client(*wanted), compute)
    await done
    breaking.cancel()
    assert compute.write()
    quorum[1].away = True
    assert compute.write()
    return calls


# The end


def test_a_higher_term_at_a_majority_fences_the_compute_once() -> None:
    async def story(quorum: Quorum) -> None:
        client = quorum.client(1, 2, 3)
        compute = await quorum.compute(client)
        _, task = quorum.keep(client, compute)
        await until(quorum.all_follow)
        await quorum.client(1, 2, 3).win_term(*KEY)
        assert not compute.write()
        await until(task.done, WELL_SECONDS + SOON)
        assert quorum.fenced == 1

    play(story)


def test_a_higher_term_at_a_minority_fences_nobody() -> None:
    async def story(quorum: Quorum) -> None:
        compute = await running(quorum)
        await quorum[3].vote(*KEY, compute.record.term + 1)
        await asyncio.sleep(10 * WELL_SECONDS)
        assert quorum.fenced == 0
        assert compute.write()
        # It has promised not to follow this one; nobody breaks that promise.
        assert not quorum[3].follows()

    play(story)


def test_a_higher_term_that_is_heard_of_in_the_middle_of_a_change_fences() -> None:
    async def story(quorum: Quorum) -> None:
        client = quorum.client(1, 2, 3)
        compute = await quorum.compute(client)
        _, task = quorum.keep(client, compute)
        await until(quorum.all_follow)
        rules = len(compute.rules)

        def overtaken(rule: str) -> None:
            for number in (1, 3):
                item = quorum[number]
                item._drive(KEY, Vote(item.timelines[KEY].term + 1))

        compute.on_rule = overtaken
        quorum[2].lose_disk()
        await until(task.done, WELL_SECONDS + STUCK_SECONDS)
        assert quorum.fenced == 1
        assert len(compute.rules) == rules + 1

    play(story)


def test_slots_that_hold_nothing_any_more_are_dropped_before_another_is_made() -> None:
    async def story(quorum: Quorum) -> None:
        await running(quorum)
        quorum[2].lose_disk()
        quorum.slots_dropped.clear()
        await until(lambda: bool(quorum.slots_dropped), WELL_SECONDS + SOON)
        ours, names = quorum.slots_dropped[0]
        assert ours == OUR_SLOTS
        assert set(names) == {OUR_SLOTS + name for name in ("sk1", "sk2", "sk3")}
        await until(quorum.all_follow, SOON)

    play(story)
