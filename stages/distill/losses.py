"""Distillation losses at N positions, one value each. Temperature T softens both sides; values are scaled by T^2, so
that gradients keep their size (Hinton et al. 2015, arXiv 1503.02531, section 2). A teacher that is too sure of itself
may be softened by a temperature of its own before that: only its side then takes the product of the two."""

import torch
from torch import Tensor
from torch.nn.functional import pad

SMALLEST_REST = 1e-6
"""Least probability of the student's rest cell: one minus a float32 sum knows no smaller one."""


def in_batch(student: Tensor, teacher: Tensor, temperature: float, teacher_temperature: float = 1.0) -> Tensor:
    """Return KL(teacher || student) over the batch's target items, [N].

    The teachers' scores on in-batch negative items are what CKD-MDSR distils (arXiv 2401.00797).

    Args:
        student: float [N, U], logits of the batch's distinct target items.
        teacher: float [N, U], raw scores of the same items: ``state . item vector``.
        temperature: T.
        teacher_temperature: of the teacher alone, beside T.
    """
    return _softened_kl(teacher, student, temperature, teacher_temperature)


def top_k(
    student: Tensor,
    logsumexp: Tensor,
    teacher: Tensor,
    kept_mass: Tensor,
    temperature: float,
    teacher_temperature: float = 1.0,
) -> Tensor:
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
        teacher_temperature: of the teacher's cells alone, beside T.
    """
    own = student - logsumexp.unsqueeze(1)
    learnt = _with_rest(own, own.exp().sum(1))
    return _softened_kl(_with_rest(teacher, kept_mass), learnt, temperature, teacher_temperature)


def top_k_plus_student(
    student: Tensor,
    logsumexp: Tensor,
    teacher: Tensor,
    kept_mass: Tensor,
    again: Tensor,
    temperature: float,
    teacher_temperature: float = 1.0,
) -> Tensor:
    """Return KL(teacher || student) over the teacher's k items, the student's m best and one "rest" cell, [N].

    An item that the student wrongly puts first is, with ``top_k``, one of thousands in the rest. Here it has a cell of
    its own: cross-entropy on a subset bounds NDCG only when the subset holds the student's top items (arXiv
    2509.20989). As in ``top_k``, T tempers the cells, of which there are k + m + 1 here, as a distribution of their
    own, so with T other than 1 items that are added change the value even where both sides agree on them.

    Args:
        student: float [N, k + m], the student's logits of the teacher's items, then of its own best ones.
        logsumexp: float [N], of all the student's logits.
        teacher: float [N, k + m], log-probabilities of the same items over the whole catalogue.
        kept_mass: float [N], probability that the teacher's k items hold.
        again: bool [N, m], which of the student's items are among the teacher's k already; they are not counted twice.
        temperature: T.
        teacher_temperature: of the teacher's cells alone, beside T.
    """
    k = teacher.shape[1] - again.shape[1]
    absent = pad(again, (k, 0))
    taught = teacher.masked_fill(absent, -torch.inf)
    own = (student - logsumexp.unsqueeze(1)).masked_fill(absent, -torch.inf)
    return _softened_kl(
        _with_rest(taught, kept_mass + taught[:, k:].exp().sum(1)),
        _with_rest(own, own.exp().sum(1)),
        temperature,
        teacher_temperature,
        pad(absent, (0, 1)),
    )


def rank(student: Tensor, logsumexp: Tensor | None, teacher: Tensor, ranked: Tensor | None = None) -> Tensor:
    """Return the mean -log probability of the teacher's choices under the student (Plackett-Luce), [N].

    The teacher's order is read as choices, best item first, each among what is left: P(i) = exp(s_i) / (exp(s_i) + sum
    of exp(s_l) over all l behind i) (ListMLE: Xia et al., ICML 2008). With the student's ``logsumexp`` all items of the
    catalogue that are not listed stand behind each listed one, in no order among themselves (DE-RRD's relaxed
    permutation, arXiv 2012.04357): what is served is a ranking of the whole catalogue, and the order of k items alone
    is the same wherever in it they stand. With None only listed items compete.

    It is a mean over choices and not their sum, so that the loss weighs the same against others whatever k is; with
    the catalogue, k = 1 is cross-entropy on the teacher's best item. Items that a teacher finds equally probable are
    in no order: neither stands behind the other. A choice with nothing behind it is none, and does not count.
    Temperature has no place here: an order has no softness, and to divide the student's side alone would ask of it
    margins T times as wide as it needs.

    Args:
        student: float [N, k], the student's logits of the teacher's items, best first.
        logsumexp: float [N], of all the student's logits, or None.
        teacher: float [N, k], log-probabilities, descending; only their order and which are equal matters.
        ranked: bool [N, k], which items surely stand above the unlisted ones; only these are chosen. All by default.
    """
    k = student.shape[1]
    own = student if logsumexp is None else student - logsumexp.unsqueeze(1)
    lowest = torch.finfo(own.dtype).min
    unlisted = torch.full_like(own[:, :1], lowest) if logsumexp is None else log_rest(own.exp().sum(1)).unsqueeze(1)
    # From each place on: log of the sum over all that stands there or behind.
    onwards = torch.cat([own, unlisted], 1).flip(1).logcumsumexp(1).flip(1)
    following = torch.searchsorted(-teacher.contiguous(), -teacher.contiguous(), right=True)
    surprise = torch.logaddexp(own, onwards.gather(1, following)) - own
    counted = following < k if logsumexp is None else torch.ones_like(following, dtype=torch.bool)
    if ranked is not None:
        counted = counted & ranked
    return (surprise * counted).sum(1) / counted.sum(1).clamp(min=1)


def _with_rest(logprobs: Tensor, mass: Tensor) -> Tensor:
    return torch.cat([logprobs, log_rest(mass).unsqueeze(1)], 1)


def log_rest(mass: Tensor) -> Tensor:
    """Return the log-probability of the rest cell, [N], from the mass of the others, [N]."""
    return (1 - mass).clamp(min=SMALLEST_REST).log()


def _softened_kl(
    teacher: Tensor, student: Tensor, temperature: float, teacher_temperature: float, absent: Tensor | None = None
) -> Tensor:
    log_p = (teacher / (temperature * teacher_temperature)).log_softmax(1)
    log_q = (student / temperature).log_softmax(1)
    if absent is not None:  # the difference of two infinities
        log_p, log_q = log_p.masked_fill(absent, 0.0), log_q.masked_fill(absent, 0.0)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(1)
