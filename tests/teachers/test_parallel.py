"""Two real processes over gloo: what they share, that none waits for one that failed, and what they train together.

Run as a program, this file is one of the processes: it calls one of the functions above the tests.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F

from ckd.stages.teachers import parallel
from ckd.stages.teachers.contract import Job
from ckd.stages.teachers.loop import Phase, generator, run_epochs
from ckd.storage.errors import UserError

CPU = torch.device("cpu")
PROCESSES, B, D, WIDTH, TAU, ROWS, BATCH, SEED = 2, 3, 4, 5, 0.2, 18, 5, 3
DRAW = torch.Generator().manual_seed(11)
LEFT, RIGHT = (torch.randn(PROCESSES * B, WIDTH, generator=DRAW, dtype=torch.float64) for _ in range(2))
INPUT, WANTED = (torch.randn(ROWS, size, generator=DRAW, dtype=torch.float64) for size in (WIDTH, 1))


# --- what the processes do


def encoder():
    torch.manual_seed(SEED)
    return nn.Sequential(nn.Linear(WIDTH, 7), nn.Tanh(), nn.Linear(7, D)).double()


def contrast(left, right, target):
    logits = F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).T / TAU
    return F.cross_entropy(logits, target)


def contrastive_gradients():
    """Gradients of the contrast over the gathered vectors of all processes, averaged."""
    model, own = encoder(), slice(parallel.rank() * B, (parallel.rank() + 1) * B)
    left, right = parallel.gathered(model(LEFT[own])), parallel.gathered(model(RIGHT[own]))
    loss = contrast(left, right, torch.arange(PROCESSES * B))
    loss.backward()
    parallel.average_gradients(model.parameters())
    return {"loss": loss.detach(), "left": left.detach(), "gradients": [tensor.grad for tensor in model.parameters()]}


def averages():
    """Means over the processes, also of a gradient that only the second process has."""
    used, unused, frozen = (nn.Parameter(torch.zeros(2, 3)) for _ in range(3))
    frozen.requires_grad_(False)
    used.grad = torch.full((2, 3), 1.0 + parallel.rank())
    if parallel.rank() == 1:
        unused.grad = torch.full((2, 3), 4.0)
    parallel.average_gradients([used, unused, frozen])
    return {"mean": parallel.mean(torch.tensor(float(parallel.rank()))), "grads": [used.grad, unused.grad, frozen.grad]}


def asked_in_turn():
    """What `first_then_others` and its kin give, also when a function gives None."""
    folder = Path(sys.argv[2])
    calls = folder / "calls.txt"

    def note(text):
        with calls.open("a") as stream:
            stream.write(f"{parallel.rank()} {text}\n")

    def make():
        note("make")

    parallel.first_then_others(make)
    here = parallel.on_first(lambda: note("on first") or "here")
    told = parallel.from_first(lambda: note("from first") or Path("told"))
    return {"here": here, "told": str(told)}


def regression():
    """A training of some epochs whose rows per batch do not divide by the number of processes."""
    model = encoder()[:2].append(nn.Linear(7, 1).double())
    if parallel.rank() == 1:
        nn.init.zeros_(model[0].weight)  # the first process' weights are the ones that count

    def batches(_, draw):
        return np.array_split(draw.permutation(ROWS), range(BATCH, ROWS, BATCH))

    def loss_of(rows, _):
        return ((model(INPUT[rows]) - WANTED[rows]) ** 2).mean()

    def validate():
        if parallel.rank():
            raise AssertionError("the first process measures")
        with torch.inference_mode():
            return {"ndcg@10": 1 / (1 + float(((model(INPUT) - WANTED) ** 2).mean()))}

    optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
    curve = run_epochs(
        Job(None, None, CPU), model, optimiser, batches, loss_of, seed=SEED, epochs=4, clip=2.0, validate=validate
    )
    timeless = [{name: value for name, value in row.items() if name != "seconds"} for row in curve]
    return {"curve": timeless, "weights": list(model.state_dict().values())}


def positions():
    """The mean over all positions of a batch that are not equally many on each process, and of their gradients."""
    own, model = (slice(2), slice(2, ROWS))[parallel.rank()], encoder()[:2].append(nn.Linear(7, 1).double())
    loss = ((model(INPUT[own]) - WANTED[own]) ** 2).mean() * parallel.weight(len(INPUT[own]))
    loss.backward()
    parallel.average_gradients(model.parameters())
    return {"loss": parallel.mean(loss), "gradients": [tensor.grad for tensor in model.parameters()]}


def second_phase():
    """What a parameter that only validation changes is on each process when a second phase begins."""
    model = nn.ModuleDict({"trained": nn.Linear(1, 1), "table": nn.Linear(1, 1).requires_grad_(False)})
    seen = []

    def batches(*_):
        seen.append(model["table"].weight.detach().clone())
        return [np.arange(2)]

    def validate():
        model["table"].weight.fill_(7.0)
        return {"ndcg@10": 0.5}

    optimiser = torch.optim.SGD(model["trained"].parameters(), lr=0.1)
    second = Phase(batches, 1, None)

    def loss_of(rows, _):
        return model["trained"](torch.ones(len(rows), 1)).mean()

    with torch.no_grad():
        model["table"].weight.fill_(3.0)
    run_epochs(
        Job(None, None, CPU), model, optimiser, batches, loss_of, seed=0, epochs=1, validate=validate, second=second
    )
    return torch.cat(seen).flatten().tolist()


def batch_of_one():
    """A training in which no batch has a row for everyone, and what it ends with."""
    model = nn.Linear(1, 1)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    job = Job(None, None, CPU)
    try:
        run_epochs(job, model, optimiser, lambda *_: [np.arange(1)] * 3, lambda *_: None, seed=0, epochs=1)
    except UserError as error:
        return str(error)


def mistakes_of_the_first():
    """What each process ends with when the first one fails, caught here to go on to the next."""

    def make():
        raise UserError("no such file")

    ends = []
    for how in (parallel.first_then_others, parallel.on_first, parallel.from_first):
        try:
            how(make)
        except (UserError, parallel.Stopped) as error:
            ends.append(type(error).__name__)
    return ends


def succeed(folder):
    bodies = [contrastive_gradients, averages, asked_in_turn, regression, positions, second_phase, batch_of_one]
    bodies.append(mistakes_of_the_first)
    torch.save({body.__name__: body() for body in bodies}, folder / f"{parallel.rank()}.pt")


def threads():
    """Names of the threads of this process."""
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


def fail(_):
    def make():
        raise UserError("no such file")

    parallel.first_then_others(make)


# --- the tests


@pytest.fixture(scope="module")
def together():
    """A function that runs one of the functions above on two processes; returns (errors, exit code) of each."""

    def run(body, folder):
        meeting = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        shared = {"WORLD_SIZE": str(PROCESSES), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(meeting.port)}
        shared["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # so that no free port has to be guessed
        command = [sys.executable, __file__, body, str(folder)]
        running = [
            subprocess.Popen(
                command, stderr=subprocess.PIPE, text=True, env={**os.environ, **shared, "RANK": str(number)}
            )
            for number in range(PROCESSES)
        ]
        return [(process.communicate(timeout=100)[1], process.returncode) for process in running]

    return run


@pytest.fixture(scope="module")
def results(together, tmp_path_factory):
    """What the functions above gave, by name: one value per process; and the folder they wrote to."""
    folder = tmp_path_factory.mktemp("several")
    for errors, code in together("succeed", folder):
        assert code == 0, errors
    given = [torch.load(folder / f"{number}.pt") for number in range(PROCESSES)]
    return {name: [each[name] for each in given] for name in given[0]} | {"folder": folder}


def test_the_gradient_of_a_gathered_contrast_is_that_of_the_authors(results):
    """Recformer, `models.py:470-496`: all gathered vectors are constants but a process' own; gradients are averaged.

    Here in one process: the same batch once per process, with the others' vectors detached, and the mean of the losses.
    """
    found = results["contrastive_gradients"]
    model = encoder()
    losses = []
    for number in range(PROCESSES):
        own = (torch.arange(PROCESSES * B) // B == number).unsqueeze(1)
        left, right = (torch.where(own, vectors, vectors.detach()) for vectors in (model(LEFT), model(RIGHT)))
        losses.append(contrast(left, right, torch.arange(PROCESSES * B)))
    torch.stack(losses).mean().backward()
    for each in found:
        torch.testing.assert_close(each["left"], model(LEFT).detach())
        torch.testing.assert_close(each["loss"], losses[0].detach())
        for gradient, tensor in zip(each["gradients"], model.parameters(), strict=True):
            torch.testing.assert_close(gradient, tensor.grad)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="Linux alone tells the threads of a process")
def test_no_thread_of_the_group_is_left_when_it_has_ended(results):
    """One that is left may abort the process while its interpreter is taken down."""
    for number in range(PROCESSES):
        left = (results["folder"] / f"threads-{number}.txt").read_text().split("\n")
        assert left
        assert not [name for name in left if "gloo" in name]


def test_averaged_over_processes_such_a_gradient_points_along_the_whole_one(results):
    """Each process sends back the part of its own vectors, so the mean is the whole gradient over their number."""
    found = results["contrastive_gradients"]
    model = encoder()
    contrast(model(LEFT), model(RIGHT), torch.arange(PROCESSES * B)).backward()
    for gradient, tensor in zip(found[0]["gradients"], model.parameters(), strict=True):
        torch.testing.assert_close(gradient * PROCESSES, tensor.grad)


def test_gradients_are_averaged_and_a_missing_one_is_zero(results):
    for each in results["averages"]:
        used, unused, frozen = each["grads"]
        assert used.unique().tolist() == [1.5]
        assert unused.unique().tolist() == [2.0]
        assert frozen is None
        assert each["mean"].item() == 0.5


def test_the_first_goes_first_and_the_others_hear_of_it(results):
    first, second = results["asked_in_turn"]
    calls = (results["folder"] / "calls.txt").read_text().splitlines()
    assert calls[0] == "0 make"
    assert calls.count("1 make") == 1
    assert [call for call in calls[1:] if call != "1 make"] == ["0 on first", "0 from first"]
    assert first == {"here": "here", "told": "told"}
    assert second == {"here": None, "told": "told"}


def test_a_failure_of_the_first_process_reaches_the_others_however_they_wait(results):
    assert results["mistakes_of_the_first"] == [["UserError"] * 3, ["Stopped"] * 3]


def test_a_failure_of_the_first_process_ends_the_others(together, tmp_path):
    (errors, code), (others, other_code) = together("fail", tmp_path)
    assert "UserError: no such file" in errors
    assert "Stopped: the first process failed; what it printed says why" in others
    assert (code, other_code) == (1, 1)


def test_a_phase_begins_on_every_process_with_the_best_weights_of_the_first(results):
    """Validation, which the first process does alone, may change what is not trained: an item table."""
    assert results["second_phase"] == [[3.0, 7.0], [3.0, 7.0]]


def test_two_processes_train_as_one_would_on_the_mean_of_both_halves(results):
    """Weights and curve against plain Adam on one process, with the rows that two processes can share evenly."""
    first, second = results["regression"]
    assert first["curve"] == second["curve"]
    assert all(torch.equal(*pair) for pair in zip(first["weights"], second["weights"], strict=True))

    model = encoder()[:2].append(nn.Linear(7, 1).double())
    optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
    for row in first["curve"]:
        losses = []
        order = generator(SEED, row["epoch"]).permutation(ROWS)
        for rows in (order[0:4], order[5:9], order[10:14], order[15:17]):
            halves = [((model(INPUT[half]) - WANTED[half]) ** 2).mean() for half in (rows[0::2], rows[1::2])]
            optimiser.zero_grad()
            loss = (halves[0] + halves[1]) / 2
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            optimiser.step()
            losses.append(loss.item())
        assert row["loss"] == pytest.approx(np.mean(losses))
        measured = 1 / (1 + float(((model(INPUT) - WANTED) ** 2).mean().detach()))
        assert row["ndcg@10"] == pytest.approx(measured)
    best = max(first["curve"], key=lambda row: row["ndcg@10"])["epoch"]
    assert best == 4
    for found, tensor in zip(first["weights"], model.state_dict().values(), strict=True):
        torch.testing.assert_close(found, tensor)


def test_means_over_unlike_numbers_of_positions_are_that_of_all(results):
    model = encoder()[:2].append(nn.Linear(7, 1).double())
    loss = ((model(INPUT) - WANTED) ** 2).mean()
    loss.backward()
    for each in results["positions"]:
        torch.testing.assert_close(each["loss"], loss.detach())
        for gradient, tensor in zip(each["gradients"], model.parameters(), strict=True):
            torch.testing.assert_close(gradient, tensor.grad)


def test_batches_too_small_for_all_processes_are_refused_by_each(results):
    message = "no batch has a row for each of the 2 processes; raise batch_size, or start fewer processes"
    assert results["batch_of_one"] == [message] * 2


def test_one_process_alone_shares_with_nobody():
    tensor = nn.Parameter(torch.ones(2))
    tensor.grad = torch.ones(2)
    assert parallel.weight(3) == 1
    parallel.average_gradients([tensor])
    assert parallel.gathered(tensor) is tensor
    assert (parallel.rank(), parallel.count()) == (0, 1)
    assert parallel.share([3, 1, 2]) == [3, 1, 2]
    assert parallel.first_then_others(lambda: None) is None
    assert parallel.from_first(lambda: 5) == parallel.on_first(lambda: 5) == 5
    assert tensor.grad.tolist() == [1, 1]


if __name__ == "__main__":
    with parallel.processes(CPU):
        {"succeed": succeed, "fail": fail}[sys.argv[1]](Path(sys.argv[2]))
    Path(sys.argv[2], f"threads-{os.environ['RANK']}.txt").write_text("\n".join(threads()))
