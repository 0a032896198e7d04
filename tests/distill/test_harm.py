"""Whether `ckd distill` says of a student that its teachers make it worse."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from small_worlds import World, world_in

from ckd.pipeline.plan import Run
from ckd.pipeline.report.students import significant_harm, student_tables
from ckd.stages.evaluate.settings import EvaluateSettings
from ckd.storage.keys import Address
from ckd.storage.runs import write_ranks

Ranks = npt.NDArray[np.int32]
USERS = 500
SAID = "worse with its teachers than without, on validation (NDCG@10 "


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world_in(tmp_path_factory.mktemp("harm"), [[0, 1, 2, 3]] * USERS, 4)


@pytest.fixture
def ranks() -> Ranks:
    return np.random.default_rng(0).integers(1, 30, USERS).astype(np.int32)


def shown(world: World, capsys: Any, plain: Ranks, distilled: Ranks, alpha: float) -> str:
    """What is printed of two students with these ranks on validation, and equal ones on test."""
    runs = {}
    for number, (name, valid) in enumerate({"plain": plain, "distilled": distilled}.items()):
        inputs = {"name": name, "valid": valid.tolist()}
        with world.store.draft(Address("runs", inputs)) as draft:
            write_ranks(draft, {"d": {"valid": valid, "test": plain}}, {"d": world.corpus})
            facts = {"parameters": 1, "ms_per_1000_users": {"d": 1.0}}
            runs[Run("small", ("d",), bool(number))] = draft.commit(facts)
    student_tables(runs, {}, EvaluateSettings(bootstrap=2_000), alpha)
    return " ".join(capsys.readouterr().out.split())


def test_a_loss_that_other_users_would_see_is_said_with_what_may_help(world: World, ranks: Ranks, capsys: Any) -> None:
    said = shown(world, capsys, ranks, 2 * ranks, alpha=0.8)
    before, after = (np.where(some <= 10, 1 / np.log2(1 + some), 0).mean() for some in (ranks, 2 * ranks))
    assert f"small in d: {SAID}{100 * (after / before - 1):+.1f} %, -" in said
    assert "let them weigh less: try the same command with --grid distill.alpha=0.2,0.4" in said


@pytest.mark.parametrize("change", [lambda ranks: ranks, lambda ranks: ranks + 29 * (np.arange(USERS) < 4), np.sort])
def test_what_may_be_luck_is_not(world: World, ranks: Ranks, capsys: Any, change: Callable[[Ranks], Ranks]) -> None:
    assert SAID not in shown(world, capsys, ranks, change(ranks).astype(np.int32), alpha=0.8)


def test_a_gain_is_no_loss(ranks: Ranks) -> None:
    assert significant_harm(2 * ranks, ranks, 2_000) is None


def test_its_interval_lies_below_zero(ranks: Ranks) -> None:
    harm = significant_harm(ranks, 2 * ranks, 2_000)
    assert harm is not None
    assert harm.low < harm.percent < harm.high < 0
