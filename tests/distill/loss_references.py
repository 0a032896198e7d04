"""Losses by their formulas in float64, and the losses themselves asked as labels hold a teacher."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ckd.stages.distill.losses import rank, top_k_plus_student

Array = npt.NDArray[np.float64]


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Array = powers / powers.sum(axis=1, keepdims=True)
    return result


def tempered_kl(p: Array, q: Array, temperature: float, of_teacher: float = 1.0) -> Array:
    """T^2 KL of two rows of probabilities raised to 1/T, the teacher's p to 1/(T of the teacher) before that."""
    p, q = (cells ** (1 / temperature) for cells in (p ** (1 / of_teacher), q))
    p, q = (cells / cells.sum(axis=1, keepdims=True) for cells in (p, q))
    result: Array = temperature**2 * np.sum(p * np.log(p / q), axis=1)
    return result


def with_rest(kept: Array) -> Array:
    return np.column_stack([kept, 1 - kept.sum(axis=1)])


def float32(values: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float32)


def stored(scores: Array, k: int) -> tuple[npt.NDArray[np.int64], Array, Array]:
    """Items, log-probabilities and kept mass of the k best of each row, as a label holds them."""
    p = softmax(scores)
    items = np.argsort(-p, axis=1)[:, :k]
    kept = np.take_along_axis(p, items, axis=1)
    return items, np.log(kept), kept.sum(axis=1)


def union(student: Array, teacher: Array, k: int, m: int) -> list[list[int]]:
    """The teacher's k best and the student's m best of each row, each item once."""
    return [
        sorted({*np.argsort(-theirs)[:k].tolist(), *np.argsort(-own)[:m].tolist()})
        for own, theirs in zip(student, teacher, strict=True)
    ]


def reference_plus_student(
    student: Array, teacher: Array, k: int, m: int, temperature: float, of_teacher: float = 1.0
) -> Array:
    values = []
    for own, theirs, items in zip(student, teacher, union(student, teacher, k, m), strict=True):
        p, q = (with_rest(softmax(scores[None])[:, items]) for scores in (theirs, own))
        values.append(tempered_kl(p, q, temperature, of_teacher)[0])
    return np.array(values)


def measured_plus_student(
    logits: torch.Tensor, teacher: Array, k: int, m: int, temperature: float, of_teacher: float = 1.0
) -> torch.Tensor:
    items, logprobs, mass = stored(teacher, k)
    best = logits.detach().topk(m, 1).indices
    again = (best.unsqueeze(2) == torch.from_numpy(items).unsqueeze(1)).any(2)
    theirs = np.take_along_axis(np.log(softmax(teacher)), best.numpy(), axis=1)
    return top_k_plus_student(
        logits.gather(1, torch.cat([torch.from_numpy(items), best], 1)),
        logits.logsumexp(1),
        torch.tensor(np.concatenate([logprobs, theirs], 1), dtype=logits.dtype),
        torch.tensor(mass, dtype=logits.dtype),
        again,
        temperature,
        of_teacher,
    )


def reference_rank(student: Array, order: Array, k: int, whole: bool) -> Array:
    """-log of the probability of each choice, one by one, over explicit sets; the mean over those that are choices."""
    values = []
    for own, best in zip(student, order, strict=True):
        left = set(range(len(own))) if whole else set(best[:k].tolist())
        surprises = []
        for item in best[:k].tolist():
            if len(left) > 1:
                among = np.array([own[other] for other in sorted(left)])
                surprises.append(among.max() + np.log(np.exp(among - among.max()).sum()) - own[item])
            left.remove(item)
        values.append(np.mean(surprises) if surprises else 0.0)
    return np.array(values)


def measured_rank(logits: torch.Tensor, teacher: Array, k: int, whole: bool) -> torch.Tensor:
    items, logprobs, _ = stored(teacher, k)
    chosen = logits.gather(1, torch.from_numpy(items))
    return rank(chosen, logits.logsumexp(1) if whole else None, torch.tensor(logprobs, dtype=logits.dtype))
