"""One run: a trained student with its metrics, its configuration and the keys of all it was trained from."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ckd.stages.distill.curriculum import difficulty
from ckd.stages.distill.geometry import principal_items
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.distill.teaching import Teaching
from ckd.stages.distill.train import WATCHED, Epoch, Lesson, train
from ckd.stages.evaluate.metrics import STORED_CUTOFFS, metrics
from ckd.stages.evaluate.ranking import rank_targets
from ckd.stages.evaluate.serving import count_parameters, milliseconds_per_1000_users
from ckd.stages.evaluate.settings import EvaluateSettings
from ckd.stages.students import STUDENTS
from ckd.stages.students.contract import Domain, by_name
from ckd.stages.students.settings import StudentSettings
from ckd.stages.students.trained import save_student
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus
from ckd.storage.curve import write_curve
from ckd.storage.draft import Draft
from ckd.storage.errors import UserError
from ckd.storage.keys import Address
from ckd.storage.runs import write_metrics, write_ranks
from ckd.storage.store import Store


def prepare_lesson(
    corpus: Corpus,
    artifact: Artifact,
    labels: Mapping[str, Artifact],
    settings: DistillSettings,
    device: torch.device,
) -> Lesson:
    """Load what the teachers say of a domain and how hard its sequences are.

    Args:
        corpus: the domain.
        artifact: its corpus artifact, for SQL.
        labels: teacher to its labels of the domain.
        settings: losses, weighting, curriculum.
        device: where the labels go.
    """
    labels = dict(sorted(labels.items()))  # teachers are summed over: their order in the configuration is in no key
    if settings.curriculum.pacing == "none":
        hardness = np.zeros(corpus.n_users)
    else:
        hardness = difficulty(corpus, artifact, labels, settings.curriculum.difficulty)
    return Lesson(Teaching.load(corpus, labels, settings, device), hardness)


def train_run(
    store: Store,
    address: Address,
    corpora: Mapping[str, Corpus],
    student: StudentSettings,
    settings: DistillSettings,
    evaluate: EvaluateSettings,
    lessons: Callable[[], Mapping[str, Lesson]] | None,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> Artifact:
    """Return one student: from the store, or trained now.

    Args:
        store: where it is kept.
        address: its key.
        corpora: domain to its corpus, of all domains of the student, in their order.
        student: settings of the network.
        settings: of the training.
        evaluate: cut-offs, masking.
        lessons: gives what the teachers say, by domain; None trains without distillation. Called only if there is
            training to do.
        seed: of the initial weights and the batches.
        device: where it runs.
        on_epoch: progress.
    """
    with store.draft(address) as draft:
        if (present := store.find(address)) is not None:
            return present
        named = by_name(corpora)
        domains = list(named.values())
        torch.manual_seed(seed)
        network = STUDENTS.load(kind_of(student)).build(student, domains).to(device)
        taught = lessons() if lessons else {}
        given = [taught.get(name) for name in corpora]
        if settings.item_start == "teacher":
            _start_items(network, domains, given)
        curve = train(network, domains, given, student, settings, seed, evaluate.mask_history, on_epoch)
        facts = _keep(draft, network, named, student, evaluate)
        write_curve(draft, curve)
        best = max(curve, key=lambda row: row[WATCHED])
        return draft.commit({**facts, "epochs": len(curve), "best_epoch": int(best["epoch"])})


def _start_items(network: Any, domains: Sequence[Domain], lessons: Sequence[Lesson | None]) -> None:
    for domain, lesson in zip(domains, lessons, strict=True):
        if lesson is None:
            continue
        vectors = lesson.teaching.item_vectors()
        if not vectors:
            raise UserError(
                "distill.item_start: none of the teachers has item vectors; let it be random, or add a teacher that "
                "scores items by vectors"
            )
        table = getattr(getattr(network, "items", None), "weight", None)
        if table is None:
            raise UserError("distill.item_start: this kind of student has no table `items`; let it be random")
        start = principal_items(vectors, table.shape[1], float(table[domain.items].detach().std()))
        with torch.no_grad():
            table[domain.items] = torch.from_numpy(start).to(table.device)


def kind_of(student: StudentSettings) -> str:
    """Return the kind of a student; every ``Settings`` of a kind has it as a field."""
    kind: str = vars(student)["kind"]
    return kind


def _keep(
    draft: Draft, network: Any, domains: Mapping[str, Domain], student: StudentSettings, evaluate: EvaluateSettings
) -> dict[str, Any]:
    corpora = {name: domain.corpus for name, domain in domains.items()}
    ranks, values, cost = {}, {}, {}
    for name, domain in domains.items():
        score = network.scorer(domain)
        ranks[name] = {
            split: rank_targets(score, domain.corpus, split, evaluate.mask_history) for split in ("valid", "test")
        }
        values[name] = {split: metrics(found, STORED_CUTOFFS) for split, found in ranks[name].items()}
        cost[name] = round(milliseconds_per_1000_users(score, domain.corpus), 3)
    write_ranks(draft, ranks, corpora)
    write_metrics(draft, values)
    save_student(draft, network, student, corpora)
    return {"parameters": count_parameters(network), "ms_per_1000_users": cost}
