"""The epochs of a training: what they compute, when they stop, and that an interrupted one goes on to the same end."""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from ckd.stages.teachers.contract import Job
from ckd.stages.teachers.loop import generator, run_epochs
from ckd.storage.errors import UserError
from ckd.storage.keys import Address
from ckd.storage.progress import TRAINING_STATES, training_states
from ckd.storage.store import Store

CPU = torch.device("cpu")
ADDRESS = Address("teachers", {"a": 1})
ROWS, WIDTH, BATCH, SEED = 22, 6, 5, 3
DRAW = torch.Generator().manual_seed(11)
INPUT, WANTED = torch.randn(ROWS, WIDTH, generator=DRAW), torch.randn(ROWS, 1, generator=DRAW)


class Ended(NamedTuple):
    """A training's end: weights, and the curve without its seconds."""

    weights: dict
    curve: list


class Stop(Exception):
    """Stands for whatever ends a process between two epochs."""


def network(dropout=0.0):
    torch.manual_seed(SEED)
    return nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1))


def loss_of(model, rows, draw):
    """Squared error on inputs with noise from the random numbers of the step."""
    noise = torch.from_numpy(draw.normal(size=(len(rows), WIDTH))).float()
    rows = torch.from_numpy(rows)
    return ((model(INPUT[rows] + 0.1 * noise) - WANTED[rows]) ** 2).mean()


def batches(_, draw):
    return np.array_split(draw.permutation(ROWS), range(BATCH, ROWS, BATCH))


def error(model):
    model.eval()
    with torch.inference_mode():
        return float(((model(INPUT) - WANTED) ** 2).mean())


def train(job, model, optimiser=None, validated=False, **options):
    """Run the epochs of the toy; validated, on minus its error, which is best at the start of a ruinous training."""
    optimiser = optimiser or torch.optim.AdamW(model.parameters(), lr=0.02)
    if validated:
        options |= {"validate": lambda: {"ndcg@10": np.float64(1 / (1 + error(model)))}}
    curve = run_epochs(
        job,
        model,
        optimiser,
        batches,
        lambda rows, draw: loss_of(model, rows, draw),
        **{"seed": SEED, "epochs": 4, **options},
    )
    timeless = [{name: value for name, value in row.items() if name != "seconds"} for row in curve]
    return Ended({name: tensor.clone() for name, tensor in model.state_dict().items()}, timeless)


def warmed_up(optimiser):
    return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / 7))


def assert_same(left, right):
    assert left.weights.keys() == right.weights.keys()
    for name, tensor in left.weights.items():
        assert torch.equal(tensor, right.weights[name]), name
    assert repr(left.curve) == repr(right.curve)  # NaN, the loss of epoch 0, is not equal to itself


def differ(left, right):
    return any(not torch.equal(tensor, right.weights[name]) for name, tensor in left.weights.items())


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


# --- what an epoch computes


def test_it_computes_what_a_plain_loop_with_schedule_and_clipping_computes():
    model, plain = network(), network()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    found = train(Job(None, None, CPU), model, optimiser, schedule=warmed_up(optimiser), clip=1.5)

    velocity = [torch.zeros_like(tensor) for tensor in plain.parameters()]
    step, losses, norms = 0, [], []
    for epoch in range(1, 5):
        losses.append([])
        for number, rows in enumerate(batches(epoch, generator(SEED, epoch))):
            loss = loss_of(plain, rows, generator(SEED, epoch, number, 0))
            gradients = torch.autograd.grad(loss, list(plain.parameters()))
            norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
            rate = 0.3 * min(1.0, (step + 1) / 7)
            with torch.no_grad():
                for tensor, moved, gradient in zip(plain.parameters(), velocity, gradients, strict=True):
                    moved.mul_(0.9).add_(gradient * min(1.0, 1.5 / norm))
                    tensor.sub_(rate * moved)
            losses[-1].append(loss.item())
            norms.append(norm)
            step += 1
    assert min(norms) < 1.5 < max(norms)
    assert [row["loss"] for row in found.curve] == pytest.approx([np.mean(each) for each in losses], rel=1e-4)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(found.weights[name], tensor, rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not():
    job = Job(None, None, CPU)
    ended = train(job, network(dropout=0.4))
    torch.rand(5)  # what else is drawn in this process does not matter
    assert_same(train(job, network(dropout=0.4)), ended)
    assert differ(train(job, network(dropout=0.4), seed=SEED + 1), ended)


def test_epochs_steps_and_processes_draw_different_numbers():
    numbers = [(), (0,), (1,), (0, 0), (1, 0), (0, 0, 0), (1, 0, 0), (1, 0, 1), (1, 1, 0)]
    drawn = {generator(seed, *each).integers(2**62) for each in numbers for seed in (0, 1)}
    assert len(drawn) == 2 * len(numbers)


def test_bfloat16_rounds_the_forward_pass_and_leaves_weights_in_float32():
    dtypes = set()

    def watch(_, __, output):
        dtypes.add(output.dtype)

    ended = {}
    for precision in ("auto", "float32", "bfloat16"):
        model = network()
        model[0].register_forward_hook(watch)
        ended[precision] = train(Job(None, None, CPU), model, precision=precision)
        assert dtypes == {torch.bfloat16 if precision == "bfloat16" else torch.float32}
        dtypes.clear()
    assert_same(ended["auto"], ended["float32"])
    assert differ(ended["bfloat16"], ended["float32"])
    for name, tensor in ended["float32"].weights.items():
        assert ended["bfloat16"].weights[name].dtype == torch.float32
        torch.testing.assert_close(ended["bfloat16"].weights[name], tensor, rtol=0, atol=0.05)
    assert ended["bfloat16"].curve[-1]["loss"] < ended["bfloat16"].curve[0]["loss"]


# --- where it starts and stops


def test_without_validation_the_last_epoch_is_kept():
    model = network()
    ended = train(Job(None, None, CPU), model)
    assert [row["epoch"] for row in ended.curve] == [1, 2, 3, 4]
    assert differ(ended, train(Job(None, None, CPU), network(), epochs=3))
    assert not model.training


def test_epoch_0_measures_the_network_as_it_came():
    model = network()
    before = 1 / (1 + error(model))
    ended = train(Job(None, None, CPU), model, validated=True, first=0)
    assert [row["epoch"] for row in ended.curve] == [0, 1, 2, 3, 4]
    assert ended.curve[0]["ndcg@10"] == before
    assert math.isnan(ended.curve[0]["loss"])


def test_it_stops_after_so_many_epochs_without_a_better_one_and_keeps_the_best():
    """With a ruinous learning rate the first epoch is the best."""
    model = network()
    ruin = torch.optim.SGD(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(ruin, lambda step: 1 if step < 5 else 30)
    job = Job(None, None, CPU)
    ended = train(job, model, ruin, schedule=schedule, validated=True, epochs=20, patience=3)
    values = [row["ndcg@10"] for row in ended.curve]
    best = int(np.argmax(values))
    assert len(values) == best + 1 + 3 < 20
    assert 1 / (1 + error(model)) == values[best]
    shorter = network()
    assert not differ(ended, train(job, shorter, torch.optim.SGD(shorter.parameters(), lr=0.01), epochs=best + 1))


def test_a_loss_that_is_not_finite_ends_it_and_nothing_is_left_to_go_on_from(store):
    model = network()
    message = r"the training diverged: the loss of epoch [2-9] is (nan|inf); lower the learning_rate"
    with pytest.raises(UserError, match=message), store.draft(ADDRESS, resume=True) as draft:
        train(Job(draft, None, CPU), model, torch.optim.SGD(model.parameters(), lr=3.0), epochs=9)
    assert store.peek(ADDRESS) is None


def test_a_weight_that_is_not_finite_ends_it_though_no_loss_tells():
    """The last step of the last epoch goes too far."""
    model = network()
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=1e3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 0.0 if step < 4 else 3e38)
    with pytest.raises(UserError, match="diverged: a weight is not finite after epoch 1; lower the learning_rate"):
        train(Job(None, None, CPU), model, optimiser, schedule=schedule, epochs=1)


# --- interrupted


def interrupted(store, after, build):
    """Train and stop after an epoch; return what the draft still has."""

    def stop(row):
        if row["epoch"] == after:
            raise Stop

    with pytest.raises(Stop), store.draft(ADDRESS, resume=True) as draft:
        build(Job(draft, None, CPU, stop))
    return store.peek(ADDRESS)


def gone_on(store, build):
    """Go on from the latest state of the draft."""
    with store.draft(ADDRESS, resume=True) as draft:
        name = next(iter(training_states(draft).values()))
        rows = []
        ended = build(Job(draft, None, CPU, rows.append, draft.partial / name))
    return ended, [row["epoch"] for row in rows]


def build(**options):
    """Return a function that trains a network with all that has a state, from its random first weights."""

    def run(job):
        model = network(dropout=0.4)
        optimiser = torch.optim.AdamW(model.parameters(), lr=0.02)
        return train(job, model, optimiser, schedule=warmed_up(optimiser), clip=1.0, **options)

    return run


@pytest.mark.parametrize("after", [1, 2, 3, 4])
@pytest.mark.parametrize("options", [{}, {"validated": True, "patience": 9}], ids=["last epoch", "best epoch"])
def test_gone_on_with_after_any_epoch_it_ends_with_the_same_bits(store, after, options):
    whole = build(**options)(Job(None, None, CPU))
    interrupted(store, after, build(**options))
    ended, epochs = gone_on(store, build(**options))
    assert epochs == list(range(after + 1, 5))
    assert_same(ended, whole)


def test_stopped_again_and_again_it_ends_with_the_same_bits(store):
    run = build(validated=True, first=0)
    for after in range(5):
        if after == 0:
            interrupted(store, 0, run)
            continue
        with pytest.raises(Stop), store.draft(ADDRESS, resume=True) as draft:
            name = next(iter(training_states(draft).values()))

            def stop(_):
                raise Stop

            run(Job(draft, None, CPU, stop, draft.partial / name))
    ended, epochs = gone_on(store, run)
    assert epochs == []
    assert_same(ended, run(Job(None, None, CPU)))


@pytest.mark.parametrize("after", [1, 2, 3])
def test_the_best_epoch_and_the_patience_outlive_an_interruption(store, after):
    """Validation is best after epoch 1; patience ends the training after epoch 3, also when that is interrupted."""

    def run(job):
        model = network()
        values = iter([0.9, 0.5, 0.4, 0.3, 0.2][len(seen) :])
        return train(job, model, validate=lambda: {"ndcg@10": next(values)}, epochs=5, patience=2)

    seen = []
    whole = run(Job(None, None, CPU))
    assert [row["epoch"] for row in whole.curve] == [1, 2, 3]
    interrupted(store, after, run)
    seen = list(range(after))
    ended, epochs = gone_on(store, run)
    assert epochs == list(range(after + 1, 4))
    assert_same(ended, whole)
    assert not differ(ended, train(Job(None, None, CPU), network(), epochs=1))


def test_while_a_state_is_written_the_one_before_is_whole(store):
    """So a process that dies while it writes loses one epoch, not the training."""
    kept = []
    with store.draft(ADDRESS) as draft:
        build()(Job(draft, None, CPU, lambda row: kept.append((row["epoch"], training_states(draft)))))
    assert kept == [
        (1, {1: TRAINING_STATES[1]}),
        (2, {2: TRAINING_STATES[0], 1: TRAINING_STATES[1]}),
        (3, {3: TRAINING_STATES[1], 2: TRAINING_STATES[0]}),
        (4, {4: TRAINING_STATES[0], 3: TRAINING_STATES[1]}),
    ]
    assert all(max(left) + 1 == max(right) for (_, left), (_, right) in pairwise(kept))
