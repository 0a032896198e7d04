"""All losses of a batch over one block of scores at a time: their values and their gradients in one pass.

The scores of the whole catalogue at N positions are the largest thing in a training step, and every operation on them
costs as much as reading and writing memory. A block of them that fits into the processor's cache is scored, turned into
softmax weights and into the gradient of every loss in place, and multiplied into the gradients of states and items
before the next is begun. Each loss' gradient with respect to a score is known in closed form: of -log p(target) it is
p minus one at the target, of T^2 KL(teacher || student at T) it is T (student - teacher) (Hinton et al. 2015, arXiv
1503.02531, section 2), so nothing of size N x n_items is ever kept for a backward pass.

The losses are those of :mod:`ckd.stages.distill.losses`, which say what they mean.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ckd.stages.distill.losses import SMALLEST_REST, log_rest
from ckd.stages.full_softmax import block_rows, slices

_LEAST_HELD = 1e-20
"""Probability of all the batch's targets together below which float32 no longer knows their shares of it."""


class Best(NamedTuple):
    """A teacher's k best items at n positions, int64 [n, k]; log-probabilities, [n, k]; the mass they hold, [n]."""

    items: Tensor
    logprobs: Tensor
    kept_mass: Tensor


@dataclass(frozen=True)
class Voice:
    """What one teacher says at N of a batch's positions.

    Attributes:
        top_k: float32 [N], weight of its top-k loss at each position, zero where it has no label; None without.
        in_batch: float32 [N], the same of its in-batch loss.
        best: gives the stored items of some of the N positions.
        among: gives its raw scores of the items of ``in_batch`` at some of the N positions, float32 [n, U], a
            new tensor, which is written over; needed for the in-batch loss alone.
        temperature: of this teacher's side alone, beside T.
    """

    top_k: Tensor | None
    in_batch: Tensor | None
    best: Callable[[slice], Best]
    among: Callable[[slice], Tensor] | None
    temperature: float = 1.0

    def weighed(self, weight: Tensor) -> "Voice":
        """Return the same with another weight at each position beside its own, float [N]."""
        top_k, in_batch = (None if own is None else own * weight for own in (self.top_k, self.in_batch))
        return replace(self, top_k=top_k, in_batch=in_batch)


class Losses(NamedTuple):
    """The sum that is to be minimised, and what it is made of at each position, weighted; these without gradients."""

    total: Tensor
    truth: Tensor
    taught: Tensor


def fused_losses(
    states: Tensor,
    items: Tensor,
    target: Tensor,
    distinct: Tensor,
    truth_weight: Tensor,
    voices: Sequence[Voice] = (),
    temperature: float = 1.0,
    rows_per_block: int | None = None,
    heard: int | None = None,
) -> Losses:
    """Return sum_n w_n CE_n + sum_p (a_pn top_k_pn + b_pn in_batch_pn), differentiable in states and items.

    The teachers are heard at the first M of the N positions only; at the others a and b are zero.

    Args:
        states: float32 [N, d], the student's query at each position.
        items: float32 [n_items, d], the student's item vectors.
        target: int64 [N], the items that followed.
        distinct: int64 [U], distinct ones among them, the items of ``in_batch``.
        truth_weight: float32 [N], w.
        voices: the teachers, with a and b, of M positions each.
        temperature: T of the teachers' losses.
        rows_per_block: positions at a time; what suits the device by default.
        heard: M; all N by default.
    """
    rows = rows_per_block or block_rows(states, items)
    heard = len(states) if heard is None else heard
    return Losses(*_Fused.apply(states, items, target, distinct, truth_weight, tuple(voices), temperature, heard, rows))


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        items: Tensor,
        target: Tensor,
        distinct: Tensor,
        truth_weight: Tensor,
        voices: tuple[Voice, ...],
        temperature: float,
        heard: int,
        rows_per_block: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        vectors, column = _targets_first(items, distinct)
        truth, taught = torch.empty_like(truth_weight), torch.empty_like(truth_weight)
        grad_states, grad_vectors = torch.empty_like(states), torch.zeros_like(vectors)
        memory = states.new_empty(2, min(rows_per_block, len(states)), len(items))
        for here in (*slices(0, heard, rows_per_block), *slices(heard, len(states), rows_per_block)):
            scores, gradient = memory[:, : here.stop - here.start]
            torch.mm(states[here], vectors.T, out=scores)
            block = _Block(scores, gradient, len(distinct), temperature)
            truth[here] = block.add_truth(column[target[here]].unsqueeze(1), truth_weight[here])
            taught[here] = block.add_teachers(voices if here.start < heard else (), here, column)
            block.finish()
            torch.mm(gradient, vectors, out=grad_states[here])
            grad_vectors.addmm_(gradient.T, states[here])
        ctx.save_for_backward(grad_states, grad_vectors.index_select(0, column))
        ctx.mark_non_differentiable(truth, taught)
        return truth.sum() + taught.sum(), truth, taught

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_states, grad_items = ctx.saved_tensors
        return grad_states * grads[0], grad_items * grads[0], *(None,) * 7


def _targets_first(items: Tensor, distinct: Tensor) -> tuple[Tensor, Tensor]:
    """Return the item vectors with the batch's targets first, and the row of each item among them.

    The scores of the targets are then the first columns of a block: a view, where a choice of columns would be a copy.
    """
    other = torch.ones(len(items), dtype=torch.bool, device=items.device)
    other[distinct] = False
    order = torch.cat([distinct, other.nonzero().squeeze(1)])
    row = torch.empty_like(order)
    row[order] = torch.arange(len(order), device=order.device)
    return items.index_select(0, order), row


class _Block:
    """The losses at n positions and, in ``gradient``, their gradient with respect to the scores, both [n, n_items].

    The gradient begins as p, the softmax of the scores: every loss asks for a multiple of it, and for something at a
    few items or at the batch's targets besides.
    """

    def __init__(self, scores: Tensor, gradient: Tensor, n_targets: int, temperature: float) -> None:
        self.scores, self.gradient, self.T = scores, gradient, temperature
        self.targets = slice(n_targets)
        torch.softmax(scores, 1, out=gradient)
        self.logsumexp = _logsumexp(scores, gradient)
        self._of_p = torch.zeros_like(self.logsumexp)
        self._of_p_at_targets: Tensor | None = None
        self._at_targets: list[tuple[Tensor, Tensor]] = []
        self._at_items: list[tuple[Tensor, Tensor]] = []

    def add_truth(self, target: Tensor, weight: Tensor) -> Tensor:
        """Return -w log p(target), [n]; ``target`` int64 [n, 1]."""
        self._of_p += weight
        self._at_items.append((target, -weight.unsqueeze(1)))
        return weight * (self.logsumexp - self.scores.gather(1, target).squeeze(1))

    def add_teachers(self, voices: Sequence[Voice], here: slice, column: Tensor) -> Tensor:
        """Return the teachers' losses, weighted and summed, [n]."""
        total = torch.zeros_like(self.logsumexp)
        for voice in voices:
            if voice.top_k is not None:
                total += self._add_top_k(voice.best(here), voice.top_k[here], column, voice.temperature)
        asked = [
            (voice.among(here), voice.in_batch[here], voice.temperature)
            for voice in voices
            if voice.in_batch is not None and voice.among is not None
        ]
        return total + self._add_in_batch(asked) if asked else total

    def finish(self) -> None:
        """Write the gradient."""
        if self._of_p_at_targets is None:
            self.gradient *= self._of_p.unsqueeze(1)
        else:
            self.gradient[:, self.targets] *= (self._of_p + self._of_p_at_targets).unsqueeze(1)
            self.gradient[:, self.targets.stop :] *= self._of_p.unsqueeze(1)
        for shares, weight in self._at_targets:
            self.gradient[:, self.targets].addcmul_(shares, weight.unsqueeze(1))
        for columns, values in self._at_items:
            self.gradient.scatter_add_(1, columns, values)

    def _add_top_k(self, best: Best, weight: Tensor, column: Tensor, teacher_temperature: float) -> Tensor:
        columns = column[best.items]
        own = self.scores.gather(1, columns) - self.logsumexp.unsqueeze(1)
        value, gradient = _top_k(own, best, self.T, teacher_temperature)
        gradient *= weight.unsqueeze(1)
        self._of_p -= gradient.sum(1)
        self._at_items.append((columns, gradient))
        return weight * value

    def _add_in_batch(self, asked: Sequence[tuple[Tensor, Tensor, float]]) -> Tensor:
        student = _divided(self.scores[:, self.targets], self.T)
        weight = torch.stack([weight for _, weight, _ in asked]).sum(0)
        total = weight * self._pull_from_student(student, weight)
        for scores, weight, teacher_temperature in asked:
            teacher = _divided(scores, self.T * teacher_temperature)
            shares = teacher.softmax(1)
            logsumexp = _logsumexp(teacher, shares)
            # KL = sum q (t - z) - logsumexp(t) + logsumexp(z), and that last one is in the total already.
            total += weight * (teacher.sub_(student).mul_(shares).sum(1) - logsumexp)
            self._at_targets.append((shares, -self.T * weight))
        return self.T**2 * total

    def _pull_from_student(self, scores: Tensor, weight: Tensor) -> Tensor:
        """Add w T softmax(scores) at the batch's targets to the gradient, return the logsumexp there, [n]."""
        held = self.gradient[:, self.targets].sum(1)
        if self.T == 1 and bool((held > _LEAST_HELD).all()):
            # The softmax over the targets is p over what of it they hold, so one product serves both.
            self._of_p_at_targets = weight / held
            return self.logsumexp + held.log()
        shares = scores.softmax(1)
        self._at_targets.append((shares, self.T * weight))
        return _logsumexp(scores, shares)


def _divided(scores: Tensor, temperature: float) -> Tensor:
    return scores if temperature == 1 else scores / temperature


def _logsumexp(scores: Tensor, shares: Tensor) -> Tensor:
    """Return the logsumexp of each row, [n], from the scores and their softmax: the best item tells."""
    return scores.amax(1) - shares.amax(1).log()


def _top_k(own: Tensor, best: Best, temperature: float, teacher_temperature: float) -> tuple[Tensor, Tensor]:
    """Return :func:`ckd.stages.distill.losses.top_k`, [n], and its gradient with respect to ``own``, [n, k].

    Args:
        own: float [n, k], the student's log-probabilities of the teacher's items.
        best: the teacher's.
        temperature: T.
        teacher_temperature: of the teacher's cells alone, beside T.
    """
    powers = own.exp()
    left = 1 - powers.sum(1, keepdim=True)
    rest = left.clamp(min=SMALLEST_REST)
    learnt = (torch.cat([own, rest.log()], 1) / temperature).log_softmax(1)
    cells = torch.cat([best.logprobs, log_rest(best.kept_mass).unsqueeze(1)], 1)
    taught = (cells / (temperature * teacher_temperature)).log_softmax(1)
    probability = taught.exp()
    value = temperature**2 * (probability * (taught - learnt)).sum(1)
    pull = temperature * (learnt.exp() - probability)
    # What the k items gain the rest loses, until there is none left.
    onto_rest = pull[:, -1:] * (left >= SMALLEST_REST) / rest
    return value, pull[:, :-1] - onto_rest * powers
