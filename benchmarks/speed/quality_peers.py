"""The peers' side of `quality.py`: trains one of RecTools' SASRecs and writes its vectors after every epoch.

Runs in the environment of `requirements-peers.txt`. The score of an item is the dot product of a user's and its vector,
so that ckd can rank with its own code: `epoch-NN.npz` holds ``valid`` and ``test`` [n_users, d], ``items`` [known, d]
and ``known`` [known], the codes of the items that have a vector: RecTools knows none that training does not have.
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from peers import BATCH, BLOCKS, HEADS, RATE, WIDTH
from pytorch_lightning import Callback, Trainer
from torch.nn.functional import cross_entropy

Data = dict[str, np.ndarray]
Encode = Callable[[torch.Tensor], torch.Tensor]


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sequences", type=Path)
    parser.add_argument("peer", choices=("rectools", "rectools-flat"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--dropout", type=float, required=True)
    parser.add_argument("--max-length", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(chosen.seed)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    with np.load(chosen.sequences) as data:
        {"rectools": sasrec_model, "rectools-flat": flat_net}[chosen.peer](dict(data), chosen)


def sasrec_model(data: Data, chosen: argparse.Namespace) -> None:
    """Fit RecTools' `SASRecModel`, defaults but for the sizes and the dropout."""
    import pandas as pd
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    frame = pd.DataFrame({Columns.User: data["user"], Columns.Item: data["item"], Columns.Weight: 1.0})
    frame[Columns.Datetime] = pd.Timestamp("2000-01-01") + pd.to_timedelta(np.arange(len(frame)), unit="s")

    class Write(Callback):
        def on_train_epoch_end(self, trainer, module) -> None:
            """Write what the epoch left."""
            network = module.torch_model.eval()
            known = np.asarray(model.data_preparator.get_known_item_ids()).astype(np.int64)
            row = np.asarray(model.data_preparator.item_id_map.convert_to_internal(known))
            with torch.no_grad():
                items = network.item_model.get_all_embeddings()
                encode = lambda x: network.encode_sessions({"x": x}, items)[:, -1]  # noqa: E731
                _write(chosen, trainer.current_epoch + 1, data, encode, items[row], known, row)
            network.train()

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=chosen.epochs,
            accelerator="cpu",
            callbacks=[Write()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    model = SASRecModel(
        n_blocks=BLOCKS,
        n_heads=HEADS,
        n_factors=WIDTH,
        dropout_rate=chosen.dropout,
        session_max_len=chosen.max_length,
        loss="softmax",
        lr=RATE,
        batch_size=BATCH,
        get_trainer_func=trainer,
    )
    model.fit(Dataset.construct(frame))


def flat_net(data: Data, chosen: argparse.Namespace) -> None:
    """Train RecTools' `FlatSASRecNet` with full softmax and AdamW."""
    from rectools.fast_transformers import FlatSASRecNet, SequenceBatchDataset, build_sequences

    user, item = torch.from_numpy(data["user"]), torch.from_numpy(data["item"])
    x, y, known, _ = build_sequences(user, item, torch.arange(len(user)), chosen.max_length)
    loader = torch.utils.data.DataLoader(SequenceBatchDataset(x, y), batch_size=BATCH, shuffle=True)
    net = FlatSASRecNet(len(known), WIDTH, BLOCKS, HEADS, chosen.max_length, chosen.dropout)
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE)
    for epoch in range(1, chosen.epochs + 1):
        for batch in loader:
            loss = cross_entropy(net(batch).flatten(0, 1), batch["y"].flatten() - 1, ignore_index=-1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        net.eval()
        with torch.no_grad():
            row = np.arange(1, len(known) + 1)
            _write(chosen, epoch, data, net.encode_last, net.all_item_embeddings(), known.numpy(), row)
        net.train()


def _write(
    chosen: argparse.Namespace,
    epoch: int,
    data: Data,
    encode: Encode,
    items: torch.Tensor,
    known: np.ndarray,
    row: np.ndarray,
) -> None:
    own = np.zeros(int(data["n_items"]), np.int64)
    own[known] = row
    vectors = {
        split: torch.cat([encode(x) for x in _histories(data, held_out, own, chosen.max_length).split(512)]).numpy()
        for split, held_out in (("valid", 2), ("test", 1))
    }
    np.savez(chosen.folder / f"epoch-{epoch:02}.npz", items=items.numpy(), known=known, **vectors)


def _histories(data: Data, held_out: int, own: np.ndarray, max_length: int) -> torch.Tensor:
    """Return each user's last known items before the target in the peer's own codes, left-padded with 0."""
    x = np.zeros((int(data["n_users"]), max_length), np.int64)
    for user, (start, end) in enumerate(zip(data["offsets"][:-1], data["offsets"][1:], strict=True)):
        history = own[data["sequence"][start : end - held_out]]
        history = history[history > 0][-max_length:]
        if len(history):
            x[user, -len(history) :] = history
    return torch.from_numpy(x)


if __name__ == "__main__":
    main()
