"""Which tree of branches a workflow makes."""

from __future__ import annotations

import random

import pytest

from pagestore.bench.parts.workflows import WORKFLOWS, Tree, Workflow


def grown(workflow: Workflow, count: int) -> Tree:
    tree, rng = Tree(workflow), random.Random(1)
    for number in range(count):
        worker, name = number % workflow.workers, str(number)
        parent = tree.parent(worker, rng)
        tree.add(worker, parent, name)
        if rng.random() < workflow.pruned:
            tree.remove(worker, name)
    return tree


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_a_tree_is_as_wide_and_as_deep_as_its_workflow_says(workflow: Workflow) -> None:
    tree = grown(workflow, 64)
    for name, parent in tree.parents.items():
        assert tree.depths[name] == tree.depths[parent] + 1 <= workflow.depth
    for name, children in tree.children.items():
        assert children == sum(1 for parent in tree.parents.values() if parent == name)
        assert children <= workflow.fan_out[name != ""]
    kept = (1 - workflow.pruned) * 64
    assert abs(len(tree.parents) - kept) <= 10
    if workflow.pruned < 1:
        assert max(tree.depths.values()) >= min(workflow.depth, 4)


def test_a_full_tree_grows_from_its_root() -> None:
    """More branches than the paper's table has room for, which our settings may ask for."""
    narrow = Workflow("narrow", 1, (1, 1), 2, 0, 0, 0, 0, 0.0)
    tree = grown(narrow, 5)
    assert [tree.depths[name] for name in tree.parents] == [1, 2, 1, 2, 1]


def test_others_are_other_branches_that_there_are() -> None:
    tree = grown(WORKFLOWS[2], 10)
    for name in tree.parents:
        others = tree.others(name, 2, random.Random(2))
        assert len(set(others)) == 2
        assert name not in others
        assert set(others) <= set(tree.parents)
