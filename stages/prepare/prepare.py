"""One domain from its raw files into the store."""

from ckd.stages.prepare.address import corpus_address
from ckd.stages.prepare.build import build_corpus
from ckd.stages.prepare.facts import corpus_facts
from ckd.stages.prepare.files import find_raw_files
from ckd.stages.prepare.raw import read_domain
from ckd.stages.prepare.settings import DomainSettings
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import MIN_LENGTH, write_corpus
from ckd.storage.errors import UserError
from ckd.storage.store import Store


def prepare_domain(store: Store, where: str, settings: DomainSettings) -> Artifact:
    """Return the corpus of a domain, made from its raw files unless it is in the store.

    Args:
        store: where the corpus is kept.
        where: the domain's key in the configuration (``domains.office``), for messages only.
        settings: where the raw files are and how they become a corpus.

    Raises:
        UserError: the raw files are missing, unreadable, unusable, changing, or nothing of them is left.
        Busy: another process is writing the same corpus.
    """
    address = corpus_address(settings)
    found = store.find(address)
    if found is not None:
        return found
    # All that the raw files can be refused for comes before the lock: a refusal leaves no trace in the store.
    raw = read_domain(find_raw_files(settings.path, settings.format), settings, where)
    built = build_corpus(raw, settings.k_core)
    if built.sequences.num_rows == 0:
        raise UserError(
            f"{settings.path}: nothing is left of the {len(raw.user)} usable interactions after the "
            f"{settings.k_core}-core (users with fewer than {MIN_LENGTH} are always dropped); "
            f"lower {where}.k_core or add data"
        )
    if corpus_address(settings) != address:
        raise UserError(f"{settings.path}: the raw files changed while they were read; run the same command again")
    with store.draft(address) as draft:
        found = store.find(address)
        if found is not None:
            return found
        write_corpus(draft, built.items, built.sequences)
        return draft.commit(facts=corpus_facts(raw, built))
