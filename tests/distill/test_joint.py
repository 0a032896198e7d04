"""One student over several domains: shared network, items of its own in each, lessons where there are any."""

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ckd.stages.batching import training_windows
from ckd.stages.distill.geometry import principal_items
from ckd.stages.distill.run import prepare_lesson, train_run
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.distill.train import _batches
from ckd.stages.evaluate.metrics import metrics
from ckd.stages.evaluate.settings import EvaluateSettings
from ckd.stages.students import STUDENTS
from ckd.stages.students.contract import side_by_side
from ckd.storage.artifact import Artifact
from ckd.storage.keys import Address
from ckd.storage.runs import domains_of, read_metrics, read_ranks

CPU = torch.device("cpu")


def cycles(users: int, n_items: int, step: int) -> list[list[int]]:
    """Each item is followed by the one ``step`` further on."""
    draw = np.random.default_rng(step)
    starts, lengths = draw.integers(n_items, size=users), draw.integers(5, 10, size=users)
    return [
        [int(start + step * place) % n_items for place in range(length)]
        for start, length in zip(starts, lengths, strict=True)
    ]


@pytest.fixture
def worlds(make_world: Any) -> dict[str, Any]:
    """Two domains of different sizes with different rules."""
    return {"red": make_world(cycles(60, 11, 1), 11), "blue": make_world(cycles(50, 7, 3), 7)}


def joint(worlds: dict[str, Any], lessons: Any = None, rate: float = 1e-2, **options: Any) -> Artifact:
    student = STUDENTS.load("sasrec").Settings(
        hidden=16, heads=1, blocks=1, max_length=8, dropout=0, learning_rate=rate, weight_decay=0, scope="joint"
    )
    corpora = {name: world.corpus for name, world in worlds.items()}
    inputs = {"domains": list(worlds), "taught": lessons is not None, "options": str(options)}
    settings = DistillSettings(**{"epochs": 15, "batch_size": 16, "loss": {"top_k": 1.0}, **options})
    store = next(iter(worlds.values())).store
    return train_run(store, Address("runs", inputs), corpora, student, settings, EvaluateSettings(), lessons, 0, CPU)


def test_one_network_learns_the_rules_of_both_domains_and_is_measured_on_each(worlds: dict[str, Any]) -> None:
    run = joint(worlds)
    assert domains_of(run) == ["red", "blue"]
    for name, world in worlds.items():
        ranks = read_ranks(run, name, "test")
        assert len(ranks) == world.corpus.n_users
        assert (ranks == 1).mean() > 0.9, name
        assert read_metrics(run, name)["test"] == pytest.approx(metrics(ranks, [10, 50]))
        assert ranks.max() <= world.corpus.n_items
    assert run.facts["ms_per_1000_users"].keys() == worlds.keys()
    assert load_file(run.path / "model.safetensors")["items.weight"].shape == (11 + 7, 16)


def test_scores_are_those_of_the_domains_own_items(worlds: dict[str, Any]) -> None:
    kind = STUDENTS.load("sasrec")
    corpora = [world.corpus for world in worlds.values()]
    red, blue = side_by_side(corpora)
    assert (red.items, blue.items) == (slice(0, 11), slice(11, 18))
    torch.manual_seed(0)
    network = kind.build(kind.Settings(hidden=8, heads=1, blocks=1, max_length=8, dropout=0), [red, blue])
    users = np.arange(5, dtype=np.int32)
    before = network.scorer(blue)(users, np.full(5, 3, np.int32))
    assert before.shape == (5, 7)
    with torch.no_grad():
        network.items.weight[red.items] += 1
    torch.testing.assert_close(network.scorer(blue)(users, np.full(5, 3, np.int32)), before)


def test_a_batch_of_one_domain_moves_no_item_of_the_other(worlds: dict[str, Any]) -> None:
    kind = STUDENTS.load("sasrec")
    red, blue = side_by_side([world.corpus for world in worlds.values()])
    network = kind.build(kind.Settings(hidden=8, heads=1, blocks=1, max_length=8), [red, blue])
    windows = training_windows(blue.corpus, 8).take(np.arange(6))
    step = network.step(blue, windows, np.random.default_rng(0))
    step.scores.logsumexp.sum().backward()
    gradient = network.items.weight.grad
    assert gradient is not None
    assert (gradient[red.items] == 0).all()
    assert (gradient[blue.items] != 0).any(1).all()


def test_a_teacher_of_one_domain_teaches_that_one_and_leaves_the_other_to_the_truth(worlds: dict[str, Any]) -> None:
    red = worlds["red"]
    scores = np.random.default_rng(0).normal(size=(red.corpus.n_positions, red.corpus.n_items))
    labels = {"t": red.label("t", scores, 3)}
    settings = DistillSettings(loss={"top_k": 1.0}, alpha=1.0, curriculum={"pacing": "none"})

    def lessons() -> dict[str, Any]:
        return {"red": prepare_lesson(red.corpus, red.artifact, labels, settings, CPU)}

    run = joint(worlds, lessons, alpha=1.0, curriculum={"pacing": "none"})
    # Random labels alone teach nothing of the red rule; nothing but the truth is taught of the blue one.
    assert (read_ranks(run, "blue", "test") == 1).mean() > 0.9
    assert (read_ranks(run, "red", "test") == 1).mean() < 0.5


def test_items_start_at_the_teachers_of_their_own_domain(worlds: dict[str, Any]) -> None:
    draw, vectors, lessons = np.random.default_rng(0), {}, {}
    options = {"epochs": 1, "curriculum": {"pacing": "none"}, "item_start": "teacher"}
    settings = DistillSettings.model_validate({"loss": {"top_k": 1.0}, **options})
    for name, world in worlds.items():
        vectors[name] = draw.normal(size=(world.corpus.n_items, 4)).astype(np.float32)
        state = draw.normal(size=(world.corpus.n_positions, 4)).astype(np.float32)
        labels = {"t": world.label("t", state @ vectors[name].T, 3, state=state, vectors=vectors[name])}
        lessons[name] = prepare_lesson(world.corpus, world.artifact, labels, settings, CPU)
    run = joint(worlds, lambda: lessons, 1e-30, **options)
    table, first = load_file(run.path / "model.safetensors")["items.weight"].numpy(), 0
    for name, world in worlds.items():
        own = table[first : first + world.corpus.n_items]
        np.testing.assert_allclose(own, principal_items([vectors[name]], 16, float(own.std())), rtol=1e-4, atol=1e-6)
        first += world.corpus.n_items


def test_the_order_of_the_batches_mixes_the_domains(worlds: dict[str, Any]) -> None:
    domains = side_by_side([world.corpus for world in worlds.values()])
    rows = [np.arange(len(training_windows(domain.corpus, 8).user)) for domain in domains]
    batches = _batches(rows, 8, np.random.default_rng(0))
    places = [place for place, _ in batches]
    assert sorted(places) != places
    for place, all_rows in enumerate(rows):
        served = np.concatenate([batch for at, batch in batches if at == place])
        np.testing.assert_array_equal(np.sort(served), all_rows)


def test_a_batch_is_a_random_draw_of_what_is_served() -> None:
    """Were its rows chosen by anything, by length for instance, a batch would be a biased estimate of the gradient."""
    draw, times, served = np.random.default_rng(0), 3_000, np.array([3, 4, 7, 10, 11, 15, 20, 22])
    together = np.zeros((23, 23))
    for _ in range(times):
        for _, batch in _batches([served], 4, draw):
            together[np.ix_(batch, batch)] += 1
    pairs = together[np.ix_(served, served)][~np.eye(8, dtype=bool)] / times
    assert np.abs(pairs - 3 / 7).max() < 5 * (3 / 7 * 4 / 7 / times) ** 0.5
