"""Students read back: from a run of the store, or from any weights with the settings they were trained with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load

from ckd.stages.students import STUDENTS
from ckd.stages.students.contract import Student, side_by_side
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError
from ckd.storage.runs import WEIGHTS, read_config

_CPU = torch.device("cpu")


def read_student(run: Artifact, corpora: Mapping[str, Corpus], device: torch.device = _CPU) -> Student:
    """Return the trained network of a run, in evaluation mode.

    Args:
        run: a run of the store.
        corpora: domain to its corpus, of all domains of the run, in its order.
        device: where the network goes.

    Raises:
        UserError: its kind is not installed here, or another version of ckd wrote it.
        DamagedArtifact: a file's bytes differ from what was written.
    """
    return rebuild(read_config(run)["student"], run.verified(WEIGHTS), corpora, device)


def rebuild(
    settings: Mapping[str, Any], weights: Path, corpora: Mapping[str, Corpus], device: torch.device = _CPU
) -> Student:
    """Return the network of some settings over some domains with the weights of a file; see :func:`read_student`."""
    kind = settings["kind"]
    if kind not in STUDENTS.names():
        raise UserError(f"{weights}: no package here offers students of kind {kind!r}; install the one that does")
    module = STUDENTS.load(kind)
    try:
        network: Any = module.build(module.Settings.model_validate(settings), side_by_side(list(corpora.values())))
        network.load_state_dict(load(weights.read_bytes()))
    except (ValidationError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()
        raise UserError(
            f"{weights}: not the weights of a {kind} as this ckd builds it ({' '.join(reason[:2])}); "
            "use the version of ckd that wrote them, or train the student again"
        ) from error
    return cast(Student, network.to(device).eval())
