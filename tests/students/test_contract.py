"""What every student must do, run on each of them (benfred/implicit's ``RecommenderBaseTestMixin``).

A kind joins by a line in ``small_students.KINDS``. What is its own, a test module of its name tests.
"""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
import torch
from known_worlds import Array
from small_students import (
    CPU,
    KINDS,
    Student,
    hits_at_2,
    lesson,
    ordered,
    perfect_labels,
    same,
    scored,
    training,
)

from ckd.stages.batching import training_windows
from ckd.stages.distill.run import train_run
from ckd.stages.distill.settings import LossName
from ckd.stages.distill.train import Lesson, step_losses, train
from ckd.stages.evaluate.ranking import rank_targets
from ckd.stages.evaluate.settings import EvaluateSettings
from ckd.stages.export.audience import Audience
from ckd.stages.export.recommend import best_lists
from ckd.stages.students.contract import Domain, Step, position_weights_of, side_by_side
from ckd.stages.students.trained import load_student
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus, read_corpus
from ckd.storage.errors import DamagedArtifact, UserError
from ckd.storage.keys import Address
from ckd.storage.labels import read_labels
from ckd.storage.runs import WEIGHTS, read_ranks
from ckd.storage.store import Store


@pytest.fixture(params=KINDS)
def student(request: pytest.FixtureRequest, make_world: Any) -> Student:
    return Student(request.param, KINDS[request.param], make_world)


class TestLearning:
    def test_it_learns_a_world_whose_right_answer_is_known(self, student: Student) -> None:
        corpus = student.world().corpus
        assert student.truth.right(ordered(student.build(corpus), corpus), corpus) < 0.7
        assert student.truth.right(ordered(student.trained(corpus), corpus), corpus) > 0.9

    def test_a_perfect_teacher_teaches_what_the_truth_alone_does_not(self, student: Student) -> None:
        world = student.world(silent=True)
        labels = perfect_labels(world, student.truth)
        alone = student.trained(world.corpus)
        assert hits_at_2(alone, world.corpus) < 0.6
        for loss in ("top_k", "in_batch"):
            option = training(epochs=student.kind.epochs, alpha=1.0, loss={loss: 1.0})
            distilled = student.trained(world.corpus, lesson(world, labels, option), distill=option)
            assert hits_at_2(distilled, world.corpus) > 0.9, loss

    @pytest.mark.parametrize("loss", get_args(LossName))
    def test_every_loss_draws_it_towards_the_teacher(self, student: Student, loss: LossName) -> None:
        world = student.world(silent=True)
        option = training(alpha=1.0, loss={loss: 1.0}, student_items=3)
        told = lesson(world, perfect_labels(world, student.truth), option)
        gate, domain = torch.from_numpy(told.teaching.gate).float(), Domain(0, world.corpus)
        network = student.build(world.corpus).train()
        optimiser = torch.optim.Adam(network.parameters(), 1e-2)
        found = []
        for _ in range(20):
            step = student.step(network, domain)
            truth, taught, count = step_losses(step, told, gate, 1.0)
            found.append(float((taught / count).detach()))
            optimiser.zero_grad()
            ((truth + taught) / count).backward()
            optimiser.step()
        assert found[-1] < 0.9 * found[0]

    def test_the_gradient_reaches_every_parameter(self, student: Student) -> None:
        corpus = student.world().corpus
        network = student.build(corpus).train()
        total, taught, count = step_losses(student.step(network, Domain(0, corpus)), None, None, 0.0)
        (total / count).backward()
        assert not taught.any()
        assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []

    def test_a_teacher_leaves_positions_without_a_label_as_they_are(self, student: Student) -> None:
        world = student.world()
        at = world.corpus.positions()
        option = training(alpha=1.0)
        labels = perfect_labels(world, student.truth, np.flatnonzero(at.user < 30))
        told = lesson(world, labels, option)
        gate = torch.from_numpy(told.teaching.gate).float()
        network, domain = student.build(world.corpus), Domain(0, world.corpus)
        network.eval()
        windows = training_windows(world.corpus, network.max_length)
        first = int((windows.user < 30).sum())
        for users, labelled in ((slice(first), True), (slice(first, None), False)):
            step = student.step(network, domain, users)
            truth, taught, count = step_losses(step, told, gate, 1.0)
            alone, _, as_many = step_losses(step, None, None, 0.0)
            assert bool(taught > 0) == labelled
            assert torch.equal(truth, alone) != labelled
            assert torch.equal(count, as_many)

    def test_teachers_that_are_heard_at_one_position_at_a_time_say_the_same_in_the_mean(self, student: Student) -> None:
        world = student.world()
        labels = perfect_labels(world, student.truth, np.flatnonzero(world.corpus.positions().user < 2))
        domain, network = Domain(0, world.corpus), student.build(world.corpus).eval()
        step = student.step(network, domain, slice(4))
        everywhere, told = (lesson(world, labels, training(taught_share=share)) for share in (1.0, 1e-6))
        gate = torch.from_numpy(told.teaching.gate).float()

        def losses(of: Lesson, draw: int) -> Array:
            torch.manual_seed(draw)
            with torch.no_grad():
                return torch.stack(step_losses(step, of, gate, 0.7)).double().numpy()

        found: dict[int, Array] = {}
        for draw in range(300):
            torch.manual_seed(draw)
            sample = told.teaching.sample(step.place)
            assert sample is not None
            found[int(sample.rows)] = losses(told, draw)
        assert len(found) == told.teaching.labelled_at(step.place).sum() > 3
        each = np.stack(list(found.values()))
        assert each[:, 1].std() > 0
        np.testing.assert_allclose(each.mean(0), losses(everywhere, 0), rtol=1e-4)

    def test_held_out_items_are_never_touched(self, student: Student) -> None:
        world, draw = student.world(), np.random.default_rng(0)
        corpus = world.corpus
        poisoned = [
            [*corpus.sequence_of(user)[:-2].tolist(), *draw.integers(0, corpus.n_items, 2).tolist()]
            for user in range(corpus.n_users)
        ]
        other = student.make_world(poisoned, corpus.n_items)
        option = training(epochs=1)
        training_rows = corpus.positions().split == 0
        assert same(*(student.trained(where.corpus, distill=option) for where in (world, other)))
        networks = []
        for where in (world, other):
            labels = perfect_labels(where, student.truth)
            assert np.array_equal(read_labels(labels, where.corpus).split == 0, training_rows)
            networks.append(student.trained(where.corpus, lesson(where, labels, option), distill=option))
        assert same(*networks)

    def test_the_seed_alone_determines_the_weights(self, student: Student) -> None:
        corpus = student.world().corpus
        runs = {seed: student.build(corpus, seed=seed) for seed in (1, 2)}
        assert same(runs[1], student.build(corpus, seed=1))
        assert not same(runs[1], runs[2])
        first, again, other = (
            student.trained(corpus, seed=seed, distill=training(), **student.kind.random) for seed in (1, 1, 2)
        )
        assert same(first, again)
        assert not same(first, other)

    def test_what_it_knows_of_each_item_by_itself_is_a_table_of_them(self, student: Student) -> None:
        sizes = (12, 21) if student.kind.joint else (12,)
        network = student.build(*(student.world(n_items=size).corpus for size in sizes))
        assert isinstance(network.items, torch.nn.Embedding)
        assert len(network.items.weight) == sum(sizes)
        assert network.items.weight.dtype == torch.float32


class TestScoring:
    @pytest.fixture
    def corpus(self, student: Student) -> Corpus:
        corpus: Corpus = student.world().corpus
        return corpus

    @pytest.fixture
    def network(self, student: Student, corpus: Corpus) -> Any:
        return student.trained(corpus, distill=training(), **student.kind.random)

    def test_every_item_has_a_finite_score_for_every_user(self, network: Any, corpus: Corpus) -> None:
        scores = scored(network, Domain(0, corpus))
        assert scores.shape == (corpus.n_users, corpus.n_items)
        assert scores.dtype == torch.float32
        assert not scores.requires_grad
        assert torch.isfinite(scores).all()
        assert (scores.std(0) > 0).all() and (scores.std(1) > 0).all()

    def test_scores_are_the_same_every_time_also_from_a_student_in_training(self, network: Any, corpus: Corpus) -> None:
        first = scored(network, Domain(0, corpus))
        network.train()
        assert torch.equal(scored(network, Domain(0, corpus)), first)

    def test_who_shares_a_batch_and_how_long_its_histories_are_changes_nothing(
        self, network: Any, corpus: Corpus
    ) -> None:
        assert len(set(corpus.lengths.tolist())) > 2
        together = scored(network, Domain(0, corpus))
        score = network.scorer(Domain(0, corpus))
        for user in range(0, corpus.n_users, 7):
            alone = score(np.array([user], np.int32), np.array([corpus.lengths[user] - 1], np.int32))
            torch.testing.assert_close(alone[0], together[user])

    def test_what_follows_a_history_changes_nothing(self, student: Student, network: Any, corpus: Corpus) -> None:
        changed = [[*corpus.sequence_of(user)[:-2].tolist(), 0, corpus.n_items - 1] for user in range(corpus.n_users)]
        other = student.make_world(changed, corpus.n_items).corpus
        assert torch.equal(scored(network, Domain(0, other), 2), scored(network, Domain(0, corpus), 2))
        later = torch.equal(scored(network, Domain(0, other)), scored(network, Domain(0, corpus)))
        assert later != student.kind.by_history

    def test_only_the_last_items_of_a_history_are_seen(self, student: Student) -> None:
        if not student.kind.windowed:
            pytest.skip("it sees histories whole")
        draw = np.random.default_rng(0)
        ends = draw.integers(0, 12, (10, 4)).tolist()
        one, other = (student.make_world([draw.integers(0, 12, 4).tolist() + end for end in ends], 12) for _ in "ab")
        for seen, equal in ((3, True), (4, False)):
            network = student.build(one.corpus, max_length=seen)
            assert network.max_length == seen
            scores = [scored(network, Domain(0, world.corpus)) for world in (one, other)]
            assert torch.equal(*scores) == equal


class TestSteps:
    @pytest.fixture
    def corpus(self, student: Student) -> Corpus:
        corpus: Corpus = student.world(users=20).corpus
        return corpus

    @pytest.fixture
    def network(self, student: Student, corpus: Corpus) -> Any:
        network = student.trained(corpus, distill=training())
        return network.eval()

    @pytest.fixture
    def step(self, student: Student, network: Any, corpus: Corpus) -> Step:
        with torch.no_grad():
            return student.step(network, Domain(0, corpus), slice(0, 20, 2))

    def test_its_positions_are_training_positions_of_the_served_users_with_what_followed(
        self, student: Student, network: Any, corpus: Corpus, step: Step
    ) -> None:
        at = corpus.positions()
        served = training_windows(corpus, network.max_length).user[0:20:2]
        place = step.place.numpy()
        assert len(place) and len(set(place.tolist())) == len(place)
        assert (at.split[place] == 0).all()
        assert set(at.user[place].tolist()) == set(served.tolist())
        assert (step.target.numpy() == at.target[place]).all()
        assert step.place.dtype == step.target.dtype == torch.int64
        for losses, length in ((step.weight, len(place)), (step.own, None)):
            if losses is not None:
                assert losses.dim() == 1 and (losses >= 0).all()
                assert length in (None, len(losses))

    def test_a_position_counts_in_the_mean_over_draws_what_the_student_says(
        self, student: Student, corpus: Corpus
    ) -> None:
        network = student.build(corpus, **student.kind.uneven)
        of_length, rounds = position_weights_of(network), 200 if student.kind.draws else 1
        windows, draw = training_windows(corpus, network.max_length), np.random.default_rng(3)
        wanted, counted = np.zeros(corpus.n_positions), np.zeros(corpus.n_positions)
        wanted[windows.places(corpus)] = np.concatenate([of_length(length) for length in windows.length.tolist()])
        for _ in range(rounds):
            step = network.step(Domain(0, corpus), windows, draw)
            weight = np.ones(len(step.place)) if step.weight is None else step.weight.detach().numpy()
            counted += np.bincount(step.place.numpy(), weight, corpus.n_positions) / rounds
        assert (len(set(wanted[wanted > 0])) > 1) == bool(student.kind.uneven)
        # Five standard deviations of the share of 200 draws, at most sqrt(1/4 / 200).
        np.testing.assert_allclose(counted, wanted, atol=0.18 if student.kind.draws else 1e-6)

    def test_its_scores_are_those_of_serving(self, student: Student, network: Any, corpus: Corpus, step: Step) -> None:
        if not student.kind.as_served:
            pytest.skip("it trains on something else")
        at = corpus.positions()
        place = step.place.numpy()
        with torch.inference_mode():
            served = network.scorer(Domain(0, corpus))(at.user[place], at.position[place])
        torch.testing.assert_close(step.scores.among(torch.arange(corpus.n_items)), served)

    def test_ways_of_asking_for_scores_agree(self, student: Student, corpus: Corpus, step: Step) -> None:
        every = torch.arange(corpus.n_items)
        scores, n = step.scores, len(step.place)
        whole = scores.among(every)
        assert whole.shape == (n, corpus.n_items)
        torch.testing.assert_close(scores.of(every.repeat(n, 1)), whole)
        picked = torch.stack([torch.randperm(corpus.n_items)[:3] for _ in range(n)])
        torch.testing.assert_close(scores.of(picked), whole.gather(1, picked))
        few = torch.tensor([7, 0, 4])
        torch.testing.assert_close(scores.among(few), whole[:, few])
        own = scores.of(picked)
        exact = scores.normaliser(picked, own)
        assert exact.shape == scores.logsumexp.shape == (n,)
        assert (exact >= own.logsumexp(1) - 1e-5).all()
        twice = torch.cat([picked, picked[:, :1]], 1)
        repeated = torch.cat([own, torch.full((n, 1), -torch.inf)], 1)
        torch.testing.assert_close(scores.normaliser(twice, repeated), exact)
        if student.kind.exact:
            torch.testing.assert_close(scores.logsumexp, whole.logsumexp(1))
            torch.testing.assert_close(exact, whole.logsumexp(1))

    def test_its_best_items_are_distinct_and_in_order(self, student: Student, corpus: Corpus, step: Step) -> None:
        best = step.scores.best(4)
        assert best.shape == (len(step.place), 4)
        assert all(len(set(row)) == 4 for row in best.tolist())
        found = step.scores.of(best)
        assert (found.diff(dim=1) <= 0).all()
        if student.kind.exact:
            whole = step.scores.among(torch.arange(corpus.n_items))
            torch.testing.assert_close(found, whole.topk(4).values)

    def test_scores_at_some_positions_are_rows_of_those_at_all(self, corpus: Corpus, step: Step) -> None:
        every = torch.arange(corpus.n_items)
        whole = step.scores.among(every)
        third = torch.arange(len(step.place)) % 3 == 0
        for chosen in (third, torch.tensor([4, 0, 4]), slice(2, 5)):
            some = step.scores.rows(chosen)
            torch.testing.assert_close(some.among(every), whole[chosen])
            torch.testing.assert_close(some.logsumexp, step.scores.logsumexp[chosen])
            torch.testing.assert_close(some.of(some.best(2)), step.scores.of(step.scores.best(2))[chosen])
            torch.testing.assert_close(some.rows(slice(1, 3)).among(every), whole[chosen][1:3])


class TestRecommending:
    @pytest.mark.parametrize("mask_seen", [False, True])
    def test_the_lists_are_the_best_items_of_the_whole_catalogue(self, student: Student, mask_seen: bool) -> None:
        corpus = student.world(users=20).corpus
        network = student.build(corpus).eval()
        audience = Audience(corpus, np.array([3, 0, 17], np.int32), known=True)
        lists = pa.Table.from_batches(best_lists(network.scorer(Domain(0, corpus)), audience, 4, mask_seen, block=2))
        with torch.inference_mode():
            scores = scored(network, Domain(0, corpus), held_out=0).double().numpy()[audience.users]
        for row, user in zip(scores, audience.users, strict=True):
            if mask_seen:
                row[corpus.sequence_of(int(user))] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :4]
        kept = np.isfinite(np.take_along_axis(scores, best, 1))
        assert (
            lists["user_id"].to_pylist() == np.repeat([f"u{user:04}" for user in audience.users], kept.sum(1)).tolist()
        )
        assert lists["item_id"].to_pylist() == [f"i{item:03}" for item in best[kept]]
        np.testing.assert_allclose(lists["score"].to_numpy(), np.take_along_axis(scores, best, 1)[kept], rtol=1e-4)


class TestSeveralDomains:
    @pytest.fixture
    def corpora(self, student: Student) -> list[Corpus]:
        if not student.kind.joint:
            pytest.skip("it is of one domain")
        return [student.world(n_items=12).corpus, student.world(n_items=21, seed=1).corpus]

    def test_one_network_learns_two_domains(self, student: Student, corpora: list[Corpus]) -> None:
        network, domains = student.build(*corpora), side_by_side(corpora)
        train(network, domains, [None, None], student.options(), training(epochs=student.kind.epochs), 0)
        for domain in domains:
            scores = scored(network, domain)
            assert scores.shape == (domain.corpus.n_users, domain.corpus.n_items)
            best = scores.argsort(1, descending=True).numpy()
            assert student.truth.right(best, domain.corpus) > 0.9

    def test_a_batch_of_one_domain_teaches_nothing_about_the_others_items(
        self, student: Student, corpora: list[Corpus]
    ) -> None:
        domains = side_by_side(corpora)
        for taught, other in (domains, domains[::-1]):
            network = student.build(*corpora).train()
            total, _, count = step_losses(student.step(network, taught), None, None, 0.0)
            (total / count).backward()
            n_items = sum(corpus.n_items for corpus in corpora)
            tables = [p.grad for p in network.parameters() if len(p) == n_items and p.grad is not None]
            assert tables
            for table in tables:
                assert table[taught.items].any()
                assert not table[other.items].any()


class TestKeeping:
    @pytest.fixture
    def run(self, student: Student, tmp_path: Path) -> tuple[Artifact, dict[str, Corpus]]:
        corpora = {"a": student.world(n_items=12).corpus} if student.kind.joint else {}
        corpora["b"] = student.world(n_items=15, seed=1).corpus
        return self.train(student, tmp_path / "runs", corpora), corpora

    def train(self, student: Student, root: Path, corpora: dict[str, Corpus], seed: int = 0) -> Artifact:
        address = Address("runs", {"domains": list(corpora), "seed": seed})
        options, evaluate = student.options(**student.kind.random), EvaluateSettings()
        return train_run(Store(root), address, corpora, options, training(), evaluate, None, seed, CPU)

    def test_what_is_loaded_scores_as_what_was_trained(
        self, student: Student, run: tuple[Artifact, dict[str, Corpus]]
    ) -> None:
        artifact, corpora = run
        torch.manual_seed(99)
        network = load_student(artifact, dict(reversed(corpora.items())))
        assert not network.training
        trained = student.build(*corpora.values(), **student.kind.random)
        domains = side_by_side(list(corpora.values()))
        train(trained, domains, [None] * len(domains), student.options(**student.kind.random), training(), 0)
        assert same(network, trained)
        for name, domain in zip(corpora, domains, strict=True):
            assert torch.equal(scored(network, domain), scored(trained, domain))
            for split in ("valid", "test"):
                stored = read_ranks(artifact, name, split)
                assert (rank_targets(network.scorer(domain), domain.corpus, split) == stored).all()

    def test_the_same_seed_writes_the_same_bytes(
        self, student: Student, run: tuple[Artifact, dict[str, Corpus]], tmp_path: Path
    ) -> None:
        artifact, corpora = run
        again, other = (self.train(student, tmp_path / f"again {seed}", corpora, seed) for seed in (0, 1))
        assert again.files[WEIGHTS] == artifact.files[WEIGHTS]
        assert other.files[WEIGHTS].sha256 != artifact.files[WEIGHTS].sha256

    def test_another_corpus_than_its_own_is_refused_in_one_line(
        self, student: Student, run: tuple[Artifact, dict[str, Corpus]]
    ) -> None:
        artifact, corpora = run
        with pytest.raises(UserError, match=r"a student of domain b, of which there is no corpus; add that domain$"):
            load_student(artifact, {name: corpus for name, corpus in corpora.items() if name != "b"})
        stranger = read_corpus(student.world(users=30, n_items=15).artifact)
        with pytest.raises(UserError, match=r"of domain b, this one is \w{16}; take that corpus or train the student"):
            load_student(artifact, {**corpora, "b": stranger})

    def test_damaged_weights_are_refused(self, run: tuple[Artifact, dict[str, Corpus]]) -> None:
        artifact, corpora = run
        path = artifact.path / WEIGHTS
        path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
        with pytest.raises(DamagedArtifact, match="is damaged"):
            load_student(artifact, corpora)
