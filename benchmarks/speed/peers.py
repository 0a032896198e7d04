"""The peers' side: RecTools' two SASRecs, in turns. Runs in an environment of its own, `requirements-peers.txt`.

    python peers.py SEQUENCES.npz rectools|rectools-flat

Both train by their own code: `SASRecModel` by its Lightning module and trainer, from which a callback takes the turns;
`FlatSASRecNet`, which comes without a trainer, by the loss of the Lightning module beside it (`UniSRecLightning`).
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import torch
from pytorch_lightning import Callback, Trainer
from torch.nn.functional import cross_entropy
from turns import CLOCKS, Turns

MAX_LENGTH, WIDTH, BLOCKS, HEADS, DROPOUT, BATCH, RATE = 100, 64, 2, 2, 0.2, 128, 1e-3


class _Counts(Callback):
    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        """Count the batch."""
        self._turns.step_done(int((batch["y"] != 0).sum()))


def sasrec_model(data: dict[str, np.ndarray], turns: Turns) -> None:
    """Fit RecTools' `SASRecModel`, defaults but for the sizes."""
    import pandas as pd
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    frame = pd.DataFrame({Columns.User: data["user"], Columns.Item: data["item"], Columns.Weight: 1.0})
    frame[Columns.Datetime] = pd.Timestamp("2000-01-01") + pd.to_timedelta(np.arange(len(frame)), unit="s")

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=10_000,
            accelerator="cpu",
            callbacks=[_Counts(turns)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    model = SASRecModel(
        n_blocks=BLOCKS,
        n_heads=HEADS,
        n_factors=WIDTH,
        dropout_rate=DROPOUT,
        session_max_len=MAX_LENGTH,
        loss="softmax",
        lr=RATE,
        batch_size=BATCH,
        get_trainer_func=trainer,
    )
    model.fit(Dataset.construct(frame))


def flat_net(data: dict[str, np.ndarray], turns: Turns) -> None:
    """Train RecTools' `FlatSASRecNet` with full softmax and AdamW."""
    from rectools.fast_transformers import FlatSASRecNet, SequenceBatchDataset, build_sequences

    user, item = torch.from_numpy(data["user"]), torch.from_numpy(data["item"])
    x, y, items, _ = build_sequences(user, item, torch.arange(len(user)), MAX_LENGTH)
    loader = torch.utils.data.DataLoader(SequenceBatchDataset(x, y), batch_size=BATCH, shuffle=True)
    net = FlatSASRecNet(len(items), WIDTH, BLOCKS, HEADS, MAX_LENGTH, DROPOUT)
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE)
    while True:
        for batch in loader:
            logits, target = net(batch), batch["y"]
            loss = cross_entropy(logits.flatten(0, 1), target.flatten() - 1, ignore_index=-1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            turns.step_done(int((target != 0).sum()))


PEERS = {"rectools": sasrec_model, "rectools-flat": flat_net}


def main() -> None:
    """Train until there are no more turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sequences", type=Path)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    with np.load(chosen.sequences) as data:
        PEERS[chosen.peer](dict(data), Turns(chosen.clock))


if __name__ == "__main__":
    main()
