"""Distillation losses at N positions, one value each. Temperature T softens both sides; values are scaled by T^2, so
that gradients keep their size (Hinton et al. 2015, arXiv 1503.02531, section 2)."""

import torch
from torch import Tensor

_SMALLEST_REST = 1e-6
"""Least probability of the student's rest cell: one minus a float32 sum knows no smaller one."""


def cross_entropy(logits: Tensor, logsumexp: Tensor, target: Tensor) -> Tensor:
    """Return -log softmax(logits)[target], [N].

    Args:
        logits: float [N, n_items].
        logsumexp: float [N], of the logits.
        target: int64 [N].
    """
    return logsumexp - logits.gather(1, target.unsqueeze(1)).squeeze(1)


def in_batch(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return KL(teacher || student) over the batch's target items, [N].

    The teachers' scores on in-batch negative items are what CKD-MDSR distils (arXiv 2401.00797).

    Args:
        student: float [N, U], logits of the batch's distinct target items.
        teacher: float [N, U], raw scores of the same items: ``state . item vector``.
        temperature: T.
    """
    return temperature**2 * _kl((teacher / temperature).log_softmax(1), (student / temperature).log_softmax(1))


def top_k(student: Tensor, logsumexp: Tensor, teacher: Tensor, kept_mass: Tensor, temperature: float) -> Tensor:
    """Return KL(teacher || student) over the teacher's k items and one "rest" cell, [N].

    The rest cell holds the remaining probability of each side, so nothing is silently renormalised and a student
    that spreads mass over items that the teacher did not store pays for it. With T other than 1 the k + 1 cells are
    tempered as a distribution of their own: softmax(log p / T). That needs nothing but what is stored, of any teacher.

    Args:
        student: float [N, k], the student's logits of the teacher's items.
        logsumexp: float [N], of all the student's logits.
        teacher: float [N, k], log-probabilities over the whole catalogue.
        kept_mass: float [N], probability that the k items hold.
        temperature: T.
    """
    taught = torch.cat([teacher, _log_rest(kept_mass).unsqueeze(1)], 1)
    own = student - logsumexp.unsqueeze(1)
    learnt = torch.cat([own, _log_rest(own.exp().sum(1)).unsqueeze(1)], 1)
    return temperature**2 * _kl((taught / temperature).log_softmax(1), (learnt / temperature).log_softmax(1))


def _log_rest(mass: Tensor) -> Tensor:
    return (1 - mass).clamp(min=_SMALLEST_REST).log()


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(1)
