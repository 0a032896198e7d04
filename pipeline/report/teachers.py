"""The table that `ckd precompute` ends with: one row per teacher and domain."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from ckd.pipeline.progress import console
from ckd.pipeline.report.layout import number, print_numbers
from ckd.stages.evaluate.metrics import STORED_CUTOFFS, metrics
from ckd.storage.artifact import Artifact
from ckd.storage.labels import part_names
from ckd.storage.parquet import read_table


def teacher_table(labels: Mapping[tuple[str, str], Artifact]) -> None:
    """Print positions, kept mass, the teacher's own metrics, bytes per stored pair and what the labels cost."""
    numbers = ["positions", "kept mass", "R@10 valid", "N@10 valid", "R@10 test", "N@10 test", "R@50 test", "N@50 test"]
    numbers += ["B/pair", "MB", "wall s", "device s"]
    rows = [[teacher, domain, *_cells(artifact)] for (teacher, domain), artifact in labels.items()]
    print_numbers(console, ["teacher", "domain"], numbers, rows)
    console.print(
        "kept mass: mean probability of the stored items; R@k, N@k: the teacher's own Recall and NDCG, of equal scores "
        "the lower item code first; B/pair: bytes of the items and logprobs columns per stored (item, log-probability) "
        "pair; MB: the whole artifact; device s: time in the teacher and the search."
    )


def teacher_ranks(artifact: Artifact, split: str) -> npt.NDArray[np.int32]:
    """Return the teacher's rank of the truth at every labelled position of a split."""
    tables = [read_table(artifact.verified(name), ["split", "target_rank"]) for name in part_names(artifact)]
    return np.concatenate([table["target_rank"].to_numpy()[table["split"].to_numpy() == split] for table in tables])


def bytes_per_pair(artifact: Artifact) -> float:
    """Return the compressed bytes of items and logprobs per stored pair."""
    size, pairs = pairs_of(artifact)
    return size / pairs if pairs else 0.0


def pairs_of(artifact: Artifact) -> tuple[int, int]:
    """Return the compressed bytes of items and logprobs, and how many stored pairs that are; reads footers only."""
    size = pairs = 0
    for name in part_names(artifact):
        with (artifact.path / name).open("rb") as stream:
            meta = pq.read_metadata(stream)
        for group in range(meta.num_row_groups):
            for column in map(meta.row_group(group).column, range(meta.num_columns)):
                if column.path_in_schema.startswith(("items.", "logprobs.")):
                    size += column.total_compressed_size
                    pairs += column.num_values
    return size, pairs // 2


def _cells(artifact: Artifact) -> list[str]:
    valid, test = (metrics(teacher_ranks(artifact, split), STORED_CUTOFFS) for split in ("valid", "test"))
    mass = [read_table(artifact.local(name), ["kept_mass"])["kept_mass"].to_numpy() for name in part_names(artifact)]
    values = [valid["recall@10"], valid["ndcg@10"]]
    values += [test[name] for name in ("recall@10", "ndcg@10", "recall@50", "ndcg@50")]
    total = sum(receipt.bytes for receipt in artifact.files.values())
    return [
        f"{sum(map(len, mass)):,}",
        f"{np.concatenate(mass).mean(dtype=np.float64):.3f}",
        *(number(value, ".4f") for value in values),
        f"{bytes_per_pair(artifact):.2f}",
        f"{total / 1e6:.1f}",
        f"{artifact.manifest['wall_seconds']:.1f}",
        f"{artifact.manifest['device_seconds']:.1f}",
    ]
