"""What the students are taught, from the store as it is. Imports no teacher, trains nothing, writes nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from ckd.pipeline.choice import Choice
from ckd.pipeline.config.models import Configuration
from ckd.pipeline.named import plan_of
from ckd.pipeline.plan import Plan
from ckd.stages.distill.explain import explain, nearest_users, user_code
from ckd.stages.distill.explanation import Explanation
from ckd.stages.students import STUDENTS
from ckd.stages.students.contract import position_weights_of, side_by_side
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus, read_corpus
from ckd.storage.errors import UserError


def explanations(
    configuration: Configuration,
    student: str | None = None,
    domains: Sequence[str] = (),
    users: Sequence[str] = (),
    positions: int = 3,
    items: int = 3,
) -> tuple[str, dict[str, Explanation]]:
    """Return the student and, by domain, what it is taught.

    Args:
        configuration: what would be trained.
        student: name of the student; the first one by default.
        domains: their names; all in which a teacher teaches by default.
        users: identifiers; each is explained in every domain that has it. A few of each domain by default.
        positions, items: as of :func:`ckd.stages.distill.explain.explain`.

    Raises:
        UserError: there is nothing to explain, a name or identifier is unknown, or labels are not in the store.
    """
    plan = plan_of(configuration)
    Choice(() if student is None else (student,), tuple(domains)).check(configuration, "explain")
    student = student or next(iter(configuration.students))
    artifacts = {domain: _corpus(plan, domain) for domain in _domains(plan, domains)}
    labels = {domain: plan.ready_labels(domain) for domain in artifacts}
    corpora = {domain: read_corpus(artifact) for domain, artifact in artifacts.items()}
    codes = _codes(corpora, artifacts, users) if users else dict.fromkeys(corpora)
    explained = {}
    for domain, chosen in codes.items():
        corpus = corpora[domain]
        network = _built(configuration.students[student], corpus)
        explained[domain] = explain(
            corpus,
            artifacts[domain],
            labels[domain],
            configuration.distill,
            network.max_length,
            chosen,
            positions,
            items,
            position_weights_of(network),
        )
    return student, explained


def _domains(plan: Plan, names: Sequence[str]) -> list[str]:
    known = plan.configuration.domains
    if plan.configuration.distill.alpha == 0:
        raise UserError("distill.alpha is 0, so students learn from the truth alone; raise it to have them taught")
    taught = [domain for domain in dict.fromkeys(names or known) if plan.taught_by(domain)]
    if not taught:
        where = " or ".join(names) if names else "any domain"
        raise UserError(f"no teacher teaches the students of {where}; see teachers and distill.teachers")
    return taught


def _corpus(plan: Plan, domain: str) -> Artifact:
    found = plan.store.find(plan.corpus(domain))
    if found is None:
        raise UserError(f"the store has no corpus of domain {domain}; run `ckd precompute`")
    return found


def _codes(
    corpora: Mapping[str, Corpus], artifacts: Mapping[str, Artifact], users: Sequence[str]
) -> dict[str, list[int]]:
    """Return the codes of some users in each of the domains that have any of them."""
    codes: dict[str, list[int]] = {}
    for user in dict.fromkeys(users):
        found = {domain: code for domain, corpus in corpora.items() if (code := user_code(corpus, user)) is not None}
        if not found:
            near = ", ".join(nearest_users(artifacts, user))
            raise UserError(f"--user: no user {user!r} in {' or '.join(corpora)}; nearest: {near}")
        for domain, code in found.items():
            codes.setdefault(domain, []).append(code)
    return {domain: codes[domain] for domain in corpora if domain in codes}


def _built(settings: Any, corpus: Corpus) -> Any:
    # How much of a history a student sees, and what of it counts, is the network's to say, not a setting of all kinds.
    return STUDENTS.load(settings.kind).build(settings, side_by_side([corpus]))
