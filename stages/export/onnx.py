"""A student as an ONNX model: any number of histories, or of its users, in, the scores of all items out."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ckd.stages.export.examples import onnx_example
from ckd.stages.export.folder import ITEMS, README, USERS, write_config
from ckd.stages.export.student import (
    CLOSE,
    SAMPLE,
    Exported,
    described,
    largest_difference,
    names_of,
    sample,
    subject_of,
    users_of,
)
from ckd.storage.errors import UserError
from ckd.storage.parquet import write_table

MODEL = "model.onnx"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
_BATCH, _LENGTH = 3, 5
"""Sizes of the histories that are traced; the model takes any."""


def require_onnx() -> None:
    """Refuse where the packages of the extra are missing.

    Raises:
        UserError: naming what installs them.
    """
    from importlib.util import find_spec

    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs {' and '.join(missing)}, not installed here; run `pip install 'ckd[export]'`")


def write_onnx(found: Exported, folder: Path, top_k: int | None) -> float:
    """Write the model, its items, its configuration and an example; return the largest difference of its scores.

    Args:
        found: the student.
        folder: empty.
        top_k: instead of all scores, give the best items and their scores.

    Raises:
        UserError: the network cannot be traced, or onnxruntime does not give the student's own scores.
    """
    n_items = found.domain.corpus.n_items
    k = None if top_k is None else min(top_k, n_items)
    model = _Model(found, k).eval()
    _trace(model, found, folder / MODEL)
    difference = _check(model, found, folder / MODEL)
    write_table(names_of(found), folder / ITEMS)
    if found.of_users:
        write_table(users_of(found), folder / USERS)
    (folder / README).write_text(onnx_example(found, k, model.outputs), encoding="utf-8")
    shapes = {
        "scores": ["float32", "batch", n_items],
        "best_items": ["int64", "batch", k],
        "best_scores": ["float32", "batch", k],
        "query": ["float32", "batch", 0 if found.vectors is None else found.vectors.item_vectors().shape[1]],
    }
    write_config(
        folder,
        {
            "format": "onnx",
            **described(found),
            "inputs": _inputs(found),
            "outputs": {name: shapes[name] for name in model.outputs},
            "largest_difference": difference,
        },
    )
    return difference


def _inputs(found: Exported) -> dict[str, list[Any]]:
    """Return type and shape of each input, in the order of the arguments of what is exported."""
    items = ["int64", "batch", "length (from 1)" if found.of_users else f"length (1 to {_longest(found)})"]
    users = {"users": ["int64", "batch"]} if found.of_users else {}
    return {**users, "items": items, "lengths": ["int64", "batch"]}


def _longest(found: Exported) -> int | None:
    """Return the items of a history that the model takes; None where these only come behind others."""
    return None if found.of_users else found.student.max_length


class _Model(nn.Module):
    """The outputs of the ONNX model, named in ``outputs``."""

    def __init__(self, found: Exported, k: int | None) -> None:
        super().__init__()
        self.serving, self._k = found.serving, k
        best = ["scores"] if k is None else ["best_items", "best_scores"]
        self.outputs = [*best, *([] if found.vectors is None else ["query"])]

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        scores, query = self.serving.answer(*given)
        outputs: tuple[Tensor, ...] = () if query is None else (query,)
        if self._k is None:
            return (scores, *outputs)
        best = scores.topk(self._k, dim=1)
        return (best.indices, best.values, *outputs)


def _trace(model: _Model, found: Exported, path: Path) -> None:
    longest = _longest(found)
    length = _LENGTH if longest is None else min(_LENGTH, longest)
    batch = torch.export.Dim("batch")
    items = {0: batch} if longest == 1 else {0: batch, 1: torch.export.Dim("length", min=1, max=longest)}
    names = list(_inputs(found))
    shapes = tuple(items if name == "items" else {0: batch} for name in names)
    sizes = [(_BATCH, length) if name == "items" else (_BATCH,) for name in names]
    fillings = [length if name == "lengths" else 0 for name in names]
    example = tuple(torch.full(size, value, dtype=torch.int64) for size, value in zip(sizes, fillings, strict=True))
    with _quiet():
        try:
            program = torch.onnx.export(
                model,
                example,
                dynamo=True,
                dynamic_shapes=(shapes,),
                input_names=names,
                output_names=model.outputs,
                verbose=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"{subject_of(found.run)} cannot be written as ONNX ({reason}); export its weights"
            ) from error
        if program is None:
            raise UserError(f"{subject_of(found.run)} cannot be written as ONNX; export its weights")
        program.save(path)


def _check(model: _Model, found: Exported, path: Path) -> float:
    """Return the largest difference between what onnxruntime and the student make of real histories."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(_ERRORS)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    users = sample(found.domain, SAMPLE)
    difference = 0.0
    for some in (users[:1], users):
        given = found.given(some)
        with torch.inference_mode():
            wanted = dict(zip(model.outputs, model(*(given[name] for name in _inputs(found))), strict=True))
        answers: list[Any] = session.run(model.outputs, {name: value.numpy() for name, value in given.items()})
        for name, values in zip(model.outputs, answers, strict=True):
            if name != "best_items":  # their scores say whether others are as good
                difference = max(difference, largest_difference(torch.from_numpy(values), wanted[name]))
    if not difference <= CLOSE:
        raise UserError(
            f"{subject_of(found.run)}: onnxruntime gives other scores than the student (by {difference:.1e}), so the "
            "model is not written; export its weights"
        )
    return difference


_ERRORS = 3
"""Severity from which onnxruntime speaks."""


@contextmanager
def _quiet() -> Iterator[None]:
    # The exporter warns of what neither we nor the user can mend.
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
