"""The frozen Recformer of one domain, as `ckd precompute` asks it.

It reads newest first and in both directions, so every history is a pass of its own. Which histories share a padded
batch is fixed by the corpus: users come in blocks of a fixed size, and the histories of one split in a block are sorted
by their tokens. So labels do not depend on how the corpus is cut into shards, on the number of workers or threads, nor
on which other splits are labelled.
"""

from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import torch

from ckd.stages.teachers.contract import Opening
from ckd.stages.teachers.frozen import WEIGHTS
from ckd.stages.teachers.recformer.checkpoint import Frozen, open_frozen
from ckd.stages.teachers.recformer.encode import encode, encode_items
from ckd.stages.teachers.recformer.files import ITEM_IDS
from ckd.stages.teachers.recformer.network import unit
from ckd.stages.teachers.recformer.table import check_items, rows_of_items
from ckd.stages.teachers.recformer.tokens import assemble, catalogue, token_counts, tokenise
from ckd.storage.corpus import SPLITS, Corpus, Positions
from ckd.storage.errors import UserError

USERS_PER_BLOCK = 64
"""Enough histories to fill passes of nearly equal lengths, few enough to be computed twice at a shard's edge."""

Precision = Literal["float32", "bfloat16", "float64"]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}


class RecformerTeacher:
    """A :class:`ckd.stages.teachers.contract.Teacher`: z(v | h) = cos(s_h, v) / tau (paper, equation 6)."""

    def __init__(
        self,
        frozen: Frozen,
        corpus: Corpus,
        device: torch.device,
        precision: Precision = "float32",
        item_vectors: npt.NDArray[np.float32] | None = None,
        splits: tuple[str, ...] = SPLITS,
    ) -> None:
        """Put the network on a device.

        Args:
            frozen: network, tokenizer and, of a fine-tuned one, the item vectors in order of code.
            corpus: the domain.
            device: where it runs.
            precision: of the passes; bfloat16 is autocast.
            item_vectors: as :meth:`item_vectors` returned them before, or None.
            splits: whose positions :meth:`queries` computes; the others' rows are zero.
        """
        self._model = frozen.model.to(device, _DTYPES[precision]).eval()
        self._corpus, self._device, self._mixed = corpus, device, precision == "bfloat16"
        self._limits = self._model.config.limits
        self._tokens = tokenise(list(catalogue(corpus)), frozen.tokenizer, self._limits)
        self._table = frozen.table
        self._vectors = None if item_vectors is None else torch.from_numpy(item_vectors)
        self._splits = [SPLITS.index(split) for split in splits]
        self._blocks: dict[int, torch.Tensor] = {}

    @classmethod
    def open(cls, opening: Opening) -> Self:
        """Open a frozen teacher and check that it fits the domain."""
        frozen = _with_rows(open_frozen(opening.files), opening)
        on_gpu = opening.device.type == "cuda"
        precision: Precision = "float32"
        if not opening.serving:
            precision = opening.settings.scoring(lambda: on_gpu)["precision"]
        return cls(frozen, opening.corpus, opening.device, precision, opening.item_vectors, opening.splits)

    @property
    def n_parameters(self) -> int:
        """Parameters of the network; a fine-tuned item table is computed from them and not counted."""
        return sum(tensor.numel() for tensor in self._model.parameters())

    def item_vectors(self) -> torch.Tensor:
        """Return unit vectors [n_items, d]: the stored table of a fine-tuned teacher, else each item encoded once."""
        if self._vectors is None:
            encoded = self._table
            if encoded is None:
                encoded = encode_items(self._model, self._tokens, self._limits, self._device, self._mixed)
            self._vectors = unit(encoded.double()).float()
        return self._vectors

    def queries(self, first: int, last: int, batch_size: int) -> torch.Tensor:
        """Return unit sequence vectors divided by tau, [N, d]; ``batch_size`` has no effect. See the contract."""
        blocks = range(first // USERS_PER_BLOCK, -(-last // USERS_PER_BLOCK))
        self._blocks = {number: self._blocks[number] for number in blocks if number in self._blocks}
        for number in blocks:
            if number not in self._blocks:
                self._blocks[number] = self._block(number)
        rows = torch.cat([self._blocks[number] for number in blocks])
        # The last block may hold users of the next shard, which asks for it again.
        self._blocks = {blocks[-1]: self._blocks[blocks[-1]]}
        offsets = self._corpus.position_offsets
        begin = offsets[first] - offsets[blocks[0] * USERS_PER_BLOCK]
        return rows[begin : begin + offsets[last] - offsets[first]]

    @torch.inference_mode()
    def queries_at(self, users: npt.NDArray[np.int32], position: npt.NDArray[np.int32]) -> torch.Tensor:
        """Return unit sequence vectors divided by tau, [n, d]; see the contract."""
        end = self._corpus.offsets[users] + position
        items = position.astype(np.int64)
        sequence = self._corpus.sequence
        length = token_counts(self._tokens, sequence, end, items, self._limits)
        encoded = encode(
            self._model,
            length,
            lambda rows: assemble(self._tokens, sequence, end[rows], items[rows], self._limits),
            self._device,
            self._mixed,
        )
        return unit(encoded) / self._model.config.temp

    def _block(self, number: int) -> torch.Tensor:
        first = number * USERS_PER_BLOCK
        positions: Positions = self._corpus.positions(first, min(first + USERS_PER_BLOCK, self._corpus.n_users))
        rows = torch.zeros(len(positions), self._model.config.hidden_size)
        for split in self._splits:
            asked = positions.split == split
            queries = self.queries_at(positions.user[asked], positions.position[asked])
            rows[torch.from_numpy(asked)] = queries.cpu().float()
        return rows


def _with_rows(frozen: Frozen, opening: Opening) -> Frozen:
    """Return a fine-tuned teacher with its item table in order of the corpus' codes, any other as it is."""
    weights, item_ids, items = opening.files[WEIGHTS], opening.files.get(ITEM_IDS), frozen.model.config.items
    if frozen.table is None and item_ids is not None:
        raise UserError(
            f"{weights} holds no item table, so {item_ids} names the rows of nothing; leave out item_ids, or name the "
            "fine-tuned weights"
        )
    if frozen.table is None:
        return frozen
    if items is not None:
        check_items(weights, items, opening.corpus)
        return frozen
    rows = rows_of_items(weights, item_ids, len(frozen.table), opening.corpus)
    return Frozen(frozen.model, frozen.tokenizer, frozen.table[torch.from_numpy(rows)])
