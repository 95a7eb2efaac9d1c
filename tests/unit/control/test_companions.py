"""What a checkpoint has besides the data: recorded, told again by moves, and written down so that
records without it are as they ever were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pagestore.client.companions import Companions
from pagestore.client.points import AtCheckpoint
from pagestore.control.moves import Asked, Moved
from pagestore.control.packing import unpack
from pagestore.control.records import Answer, AnswersRecord, CheckpointRecord, Verb
from pagestore.errors import AlreadyExists
from pagestore.ids import TimelineId
from tests.unit.control.fakes import TENANT, Plane, play


async def restore(world: Plane, checkpoint: str = "base", request: str = "") -> Moved:
    point = AtCheckpoint(checkpoint)
    return await world.plane.past.restore(TENANT, "app", point, Asked(request))


def test_a_move_tells_what_has_to_go_back_with_it_also_when_it_is_asked_again(
    tmp_path: Path,
) -> None:
    async def story(world: Plane) -> None:
        past = world.plane.past
        await world.plane.databases.create(TENANT, "app")
        besides = Companions("c0ffee", "d1f7", "run-7", {"seed": "4"})
        made = await past.checkpoint(TENANT, "app", "base", besides)
        assert made.companions == besides
        assert (await past.checkpoint(TENANT, "app", "base", besides)) == made
        with pytest.raises(AlreadyExists):
            await past.checkpoint(TENANT, "app", "base", Companions("c0ffee"))
        world.commit("damage")
        would = await past.restore(TENANT, "app", AtCheckpoint("base"), Asked("", dry_run=True))
        first = await restore(world, request="a")
        await past.delete_checkpoint(TENANT, "app", "base")
        again = await restore(world, request="a")
        assert would.went_to == first.went_to == again.went_to == made
        assert first.kept is not None
        assert (await restore(world, first.kept.name)).went_to is None, "it has no code"
        await past.checkpoint(TENANT, "app", "new", besides)
        world.commit("damage")
        undone = await past.undo(TENANT, "app")
        assert undone.went_to is not None
        assert undone.went_to.companions == besides

    play(tmp_path, story)


def test_a_checkpoint_with_nothing_besides_is_read_by_those_who_know_of_nothing_else() -> None:
    plain = CheckpointRecord(name="c", timeline=TimelineId.generate(), lsn=8, created_micros=1)
    assert set(json.loads(unpack(plain.encode()))) == {"name", "timeline", "lsn", "created_micros"}
    assert CheckpointRecord.decode(plain.encode(), "here") == plain
    answer = Answer(request="r", verb=Verb.UNDO, changed=True, summary="s")
    assert (
        "went_to" not in json.loads(unpack(AnswersRecord(answers=(answer,)).encode()))["answers"][0]
    )
    full = plain.model_copy(update={"notes": {"a": "b"}, "run_id": "r"})
    went = AnswersRecord(answers=(answer.model_copy(update={"went_to": full}),))
    assert AnswersRecord.decode(went.encode(), "here") == went
