"""What `ckd sql` shows of a configuration."""

from ckd.pipeline.config.models import Configuration
from ckd.pipeline.named import plan_of
from ckd.pipeline.plan import Pending, Plan
from ckd.storage.artifact import MAKERS, Artifact
from ckd.storage.errors import UserError
from ckd.storage.location import Location
from ckd.storage.sql import AgreementSource, Contents, LabelSource


def sql_contents(configuration: Configuration) -> tuple[Contents, list[str]]:
    """Return the configuration's corpora and labels as far as they are made, and all runs of the store.

    The second part says what had to be left out, a line each: what is in the store can be asked also where raw files
    or checkpoints, which tell whose it is, are no longer there.
    """
    plan = plan_of(configuration)
    if not plan.store.root.is_dir():
        return Contents({}, [], []), [f"there is no store at {plan.store.root} yet; the views are empty"]
    missing = [left_out(kind, path) for kind in ("corpus", "labels", "agreement") for path in plan.store.damaged(kind)]
    runs, damaged = plan.store.found("runs")
    missing += [left_out("runs", path) for path in damaged]
    corpora: dict[str, Artifact] = {}
    labels: list[LabelSource] = []
    for domain in configuration.domains:
        try:
            corpus = plan.store.find(plan.corpus(domain))
        except UserError as error:
            missing.append(f"left out domain {domain}: {error}")
            continue
        if corpus is not None:
            corpora[domain] = corpus
        for teacher in configuration.teachers:
            if not plan.teacher(teacher).labels(domain):
                continue
            try:
                found = plan.store.find(plan.labels(teacher, domain))
            except Pending:
                continue
            except UserError as error:
                missing.append(f"left out labels of {teacher} for {domain}: {error}")
                continue
            if found is not None and corpus is not None and found.inputs["corpus"] != corpus.key:
                missing.append(f"left out labels of {teacher} for {domain}: they are of another corpus")
            elif found is not None:
                labels.append(LabelSource(teacher, domain, found))
    return Contents(corpora, labels, runs, _agreements(plan, labels)), missing


def left_out(kind: str, path: Location) -> str:
    """Return what is said of a damaged artifact of a kind."""
    return f"left out {path}: it is damaged; run `ckd {MAKERS[kind]}` to make it again"


def _agreements(plan: Plan, labels: list[LabelSource]) -> list[AgreementSource]:
    """Return what is kept of the pairs of teachers whose labels are there."""
    there = {(source.teacher, source.domain) for source in labels}
    found = []
    for domain in plan.configuration.domains:
        for one, other in plan.pairs(domain):
            if {(one, domain), (other, domain)} <= there:
                kept = plan.store.find(plan.agreement(one, other, domain))
                found += [AgreementSource(domain, one, other, kept)] if kept is not None else []
    return found
