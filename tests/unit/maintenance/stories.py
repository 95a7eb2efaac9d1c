"""How many stories a state machine of these tests tells where it must show something."""

from __future__ import annotations

from hypothesis import Phase, settings


def some(examples: int, *, steps: int) -> settings:
    """The same each time, as long as the same modules are imported: constants in them are drawn,
    too."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
    )
