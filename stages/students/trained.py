"""A trained student in a run artifact: ``model.safetensors``, and ``config.json`` with all that builds it again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load, save

from ckd.stages.students import STUDENTS
from ckd.stages.students.contract import side_by_side
from ckd.stages.students.settings import StudentSettings
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus
from ckd.storage.draft import Draft
from ckd.storage.errors import UserError
from ckd.storage.runs import WEIGHTS, read_config, write_config


def save_student(
    draft: Draft, network: torch.nn.Module, settings: StudentSettings, corpora: Mapping[str, Corpus]
) -> None:
    """Add a student to a draft of a run.

    Args:
        draft: of the run.
        network: the student.
        settings: it was built with.
        corpora: domain to its corpus, of all domains of the student, in their order.
    """
    domains = [{"domain": name, "corpus": corpus.key, "n_items": corpus.n_items} for name, corpus in corpora.items()]
    write_config(draft, {"student": settings.model_dump(mode="json"), "domains": domains})
    draft.add(WEIGHTS, lambda path: _save(network, path))


def load_student(run: Artifact, corpora: Mapping[str, Corpus], device: torch.device | None = None) -> Any:
    """Return the :class:`ckd.stages.students.contract.Student` of a run, in evaluation mode.

    Args:
        run: the artifact.
        corpora: domain to its corpus, at least of all domains of the student, in any order.
        device: where it goes; the CPU by default.

    Raises:
        UserError: a corpus is missing or another one than the student's, nobody offers its kind any more, or the
            run is of a version that built it in another way.
        DamagedArtifact: a file's bytes differ from what was written.
    """
    config = read_config(run)
    if "domains" not in config:
        raise UserError(f"{run.path} was written by an earlier version; run `ckd distill` to train the student again")
    own = [_own_corpus(run, domain, corpora) for domain in config["domains"]]
    network = rebuild(config["student"], run.verified(WEIGHTS), own)
    return network.to(device or torch.device("cpu"))


def rebuild(settings: Mapping[str, Any], weights: Path, corpora: Sequence[Corpus]) -> Any:
    """Return the student of some settings over some domains with the weights of a file, in evaluation mode.

    Raises:
        UserError: nobody offers its kind any more, or this version builds it in another way.
    """
    kind, folder = settings["kind"], weights.parent
    try:
        module = STUDENTS.load(kind)
    except KeyError:
        raise UserError(
            f"{folder} holds a student of kind {kind!r}, which no installed package offers; "
            "install it or train another student"
        ) from None
    try:
        network = module.build(module.Settings.model_validate(settings), side_by_side(corpora))
        network.load_state_dict(load(weights.read_bytes()))
    except (ValidationError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{folder} holds a {kind} that this version does not build ({reason}); "
            "train it again or install the version that wrote it"
        ) from error
    network.eval()
    return network


def _own_corpus(run: Artifact, domain: Mapping[str, Any], corpora: Mapping[str, Corpus]) -> Corpus:
    name = domain["domain"]
    if name not in corpora:
        raise UserError(f"{run.path} holds a student of domain {name}, of which there is no corpus; add that domain")
    corpus = corpora[name]
    if corpus.key != domain["corpus"]:
        raise UserError(
            f"{run.path} holds a student of corpus {domain['corpus'][:16]} of domain {name}, this one is "
            f"{corpus.key[:16]}; take that corpus or train the student again"
        )
    return corpus


def _save(network: torch.nn.Module, path: Path) -> None:
    # Not save_file: what it raises on a full disk is no OSError.
    path.write_bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}))
