"""A run of the store as the command line names it, and what it was trained on; needs no raw files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckd.pipeline.commands import Request
from ckd.pipeline.config.problems import unnamed
from ckd.storage.artifact import Artifact
from ckd.storage.errors import UserError
from ckd.storage.keys import SHORT
from ckd.storage.location import Location
from ckd.storage.runs import called, corpora_of, domains_of
from ckd.storage.store import Store

if TYPE_CHECKING:
    from ckd.pipeline.plan import Plan
    from ckd.storage.corpus import Corpus

VARIANTS = {"distilled": True, "plain": False}
_LISTED = 8


@dataclass(frozen=True)
class Place:
    """Where runs are looked for.

    Attributes:
        store: the store.
        plan: of the configuration; None where only a store was named.
        device: as the configuration has it.
    """

    store: Store
    plan: "Plan | None"
    device: str


@dataclass(frozen=True)
class Chosen:
    """A run, the domain that its name gave, if it gave one, and what is to be said about the choice."""

    run: Artifact
    domain: str | None = None
    note: str | None = None

    def domain_or(self, asked: str | None) -> str:
        """Return the domain that is meant.

        Raises:
            UserError: none is named and the run has several, or the one named is not among them.
        """
        names = domains_of(self.run)
        chosen = asked or self.domain or (names[0] if len(names) == 1 else None)
        if chosen is None:
            raise UserError(f"run {called(self.run)} serves several domains; name one with --domain")
        if chosen not in names:
            raise UserError(f"run {called(self.run)} has no domain {chosen!r}; it has {', '.join(names)}")
        return chosen


def place_of(request: Request, store: str | None) -> Place:
    """Return the store that a command line means: one that it names, or the configuration's.

    Raises:
        UserError: there is no such folder, or the configuration is wrong.
    """
    if store is None:
        from ckd.pipeline.named import plan_of

        configuration = request.load()
        return Place(Store(configuration.store), plan_of(configuration), configuration.device)
    idle = "--set" if request.overrides else f"-c {request.named}" if request.named else None
    if idle is not None:
        raise UserError(f"--store reads no configuration, so {idle} changes nothing; leave one of them out")
    found = Store(store)
    if not found.root.is_dir():
        raise UserError(f"--store {store}: there is no such folder; name the store that holds the run")
    return Place(found, None, "auto")


def choose_run(place: Place, name: str) -> Chosen:
    """Return the run of a key, or a beginning of one, or of ``STUDENT/DOMAIN[/plain]``.

    Raises:
        UserError: there is none, or several; the text lists those that there are.
    """
    if "/" in name:
        return _by_parts(place, name)
    runs, damaged = place.store.found("runs")
    for folder in damaged:
        if folder.name.startswith(name.lower()):
            raise UserError(_damaged_run(folder))
    return Chosen(_only([run for run in runs if run.key.startswith(name.lower())], name, runs, place.store))


def corpora_in(store: Store, run: Artifact) -> dict[str, "Corpus"]:
    """Return the corpora that a run was trained on, by domain, in its order.

    Raises:
        UserError: one is not in the store.
        DamagedArtifact: a file's bytes differ from what was written.
    """
    from ckd.storage.corpus import read_corpus

    corpora = {}
    for domain, key in corpora_of(run).items():
        artifact = store.with_key("corpus", key)
        if artifact is None:
            short = key[:SHORT]
            has = "has only a damaged" if (store.root / "corpus" / short).exists() else "lacks the"
            raise UserError(
                f"{store.root} {has} corpus {short} of domain {domain} that run {called(run)} was trained on; "
                "copy it into the store, or run `ckd prepare` on the same raw files"
            )
        corpora[domain] = read_corpus(artifact)
    return corpora


def _by_parts(place: Place, name: str) -> Chosen:
    student, _, rest = name.partition("/")
    domain, _, variant = rest.partition("/")
    if not student or not domain or variant not in ("", *VARIANTS):
        raise UserError(f"{name!r} names no run; write STUDENT/DOMAIN, STUDENT/DOMAIN/plain, or the key of a run")
    distilled = VARIANTS[variant or "distilled"]
    runs = place.store.all("runs")
    same = [
        run
        for run in runs
        if run.inputs["student"] == student and domain in domains_of(run) and run.inputs["distilled"] == distilled
    ]
    if place.plan is None:
        return Chosen(_only(same, name, runs, place.store), domain)
    return _configured(place.plan, student, domain, distilled, name, same)


def _configured(
    plan: "Plan", student: str, domain: str, distilled: bool, name: str, same: Sequence[Artifact]
) -> Chosen:
    configuration = plan.configuration
    sections: Mapping[str, Sequence[str]] = {
        "student": [*configuration.students],
        "domain": [*configuration.domains],
    }
    for value, (what, known) in zip((student, domain), sections.items(), strict=True):
        if value not in known:
            raise UserError(f"{name}: {unnamed(what, value, known)}")
    wanted = [
        run for run in plan.runs() if (run.student, run.distilled) == (student, distilled) and domain in run.domains
    ]
    if not wanted:
        other = "without distillation only: write" if distilled else "with distillation only: write"
        instead = f"{student}/{domain}/plain" if distilled else f"{student}/{domain}"
        raise UserError(f"{name}: by the configuration this student is trained {other} {instead}")
    try:
        address = plan.run(wanted[0])
    except UserError as error:
        # Raw files and teachers tell which run is the configuration's; a store alone may still leave no doubt.
        if len(same) != 1:
            found = f"the store has {_listed(same)}; name one by its key" if same else "the store has none of that name"
            raise UserError(f"{name}: {error}; {found}") from error
        return Chosen(same[0], domain, f"took {called(same[0])}, the only run of that name in the store ({error})")
    run = plan.store.find(address)
    if run is None:
        if (folder := plan.store.folder(address)) in plan.store.damaged("runs"):
            raise UserError(f"{name}: {_damaged_run(folder)}")
        others = f"; the store has others of that name: {_listed(same)}" if same else ""
        raise UserError(f"{name}: the store has no run of this configuration; run `ckd distill`{others}")
    return Chosen(run, domain)


def _only(found: Sequence[Artifact], name: str, runs: Sequence[Artifact], store: Store) -> Artifact:
    if not found:
        there = f"it has {_listed(runs)}" if runs else "it has no runs; `ckd distill` makes them"
        raise UserError(f"the store {store.root} has no run {name!r}; {there}")
    if len(found) > 1:
        raise UserError(f"{name!r} may be any of {_listed(found)}; write more of the key")
    return found[0]


def _damaged_run(folder: Location) -> str:
    return f"run {folder.name} is damaged; `ckd verify` says what is wrong with it, `ckd distill` makes it again"


def _listed(runs: Sequence[Artifact]) -> str:
    more = f" and {len(runs) - _LISTED} more" if len(runs) > _LISTED else ""
    return ", ".join(called(run) for run in runs[:_LISTED]) + more
