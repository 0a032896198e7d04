"""What the losses in use need of a teacher's labels, and what to do where it is not there."""

from ckd.stages.distill.holding import scoring
from ckd.stages.distill.settings import DistillSettings
from ckd.storage.artifact import Artifact
from ckd.storage.errors import UserError
from ckd.storage.labels import LISTED_WITHIN, REST, UNIFORM, LabelBlock, out_of_order, tells_the_rest
from ckd.storage.vectors import VECTORS


def refuse_unfit(teacher: str, artifact: Artifact, block: LabelBlock, n_items: int, settings: DistillSettings) -> None:
    """Refuse labels that the losses in use cannot be computed from.

    Args:
        teacher: its name.
        artifact: its labels.
        block: what of them is used.
        n_items: size of the catalogue.
        settings: of the training.

    Raises:
        UserError: items that are not stored are to be scored, and nothing tells how, or to be ordered, and have no
            order.
    """
    scored = block.state is not None and VECTORS in artifact.files
    if scoring(settings) and not scored and not tells_the_rest(artifact, block):
        raise UserError(_no_scores(teacher, artifact, settings))
    if settings.loss.get("rank") and out_of_order(artifact, block, n_items):
        raise UserError(_no_order(teacher, artifact, n_items, settings))


def refuse_empty(teacher: str, block: LabelBlock) -> None:
    """Refuse a teacher that has no label to train on.

    Raises:
        UserError: the block of its training labels is empty.
    """
    if not len(block):
        raise UserError(
            f"the labels of teacher {teacher} cover no training position; "
            "add train to labels.splits and run `ckd precompute`, or leave the teacher out of distill.teachers"
        )


def _no_scores(teacher: str, artifact: Artifact, settings: DistillSettings) -> str:
    losses = scoring(settings)
    without = f"leave {' and '.join(losses)} out"
    listed = artifact.facts.get(LISTED_WITHIN)
    if listed is not None and settings.teacher_items is not None and settings.teacher_items < listed:
        return (
            f"distill.loss.{losses[0]} needs all listed items of teacher {teacher}; set distill.teacher_items to "
            f"{listed} or more, or {without}"
        )
    if artifact.facts.get(REST) == UNIFORM:
        return (
            f"distill.loss.{losses[0]} needs all listed items of teacher {teacher} in its labels; set labels.top_k to "
            f"{artifact.facts[LISTED_WITHIN]} or more and run `ckd precompute`, or {without} (of "
            "log-probabilities so low that unlisted items come before listed ones, scores: logit keeps the order)"
        )
    return (
        f"distill.loss.{losses[0]} needs the states of teacher {teacher}, its labels hold none; "
        f"set labels.state: true and run `ckd precompute`, or {without}"
    )


def _no_order(teacher: str, artifact: Artifact, n_items: int, settings: DistillSettings) -> str:
    mends = []
    if artifact.inputs.get("top_k", 0) < n_items:
        mends.append(f"set labels.top_k to {n_items} (the whole catalogue) and run `ckd precompute`")
    if settings.teacher_items is not None and settings.teacher_items < n_items:
        mends.append(f"set distill.teacher_items to {n_items} or leave it out")
    return (
        f"distill.loss.rank needs the order of teacher {teacher}, and some of its log-probabilities are so low that "
        f"unlisted items, which have no order, come before listed ones; give the teacher scores: logit, "
        f"{', and '.join(mends)}, or leave rank out"
    )
