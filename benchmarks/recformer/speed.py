"""What it costs to label with a Recformer: ckd's way against the plain one, and two ways of windowed attention.

Plain: histories in the order of the corpus, each padded to the largest number of tokens that the network reads, every
layer computed at every token. Both ways are taken in turn, in one thread, on the same histories, and give the same
vectors.

    python benchmarks/recformer/speed.py                      # the bundled teacher on samples/scientific
    python benchmarks/recformer/speed.py --base               # the size of the released Recformer, random weights
    python benchmarks/recformer/speed.py --attention          # dense against blocks, by length
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from ckd.stages.prepare.prepare import prepare_domain
from ckd.stages.prepare.settings import DomainSettings
from ckd.stages.teachers.recformer.attention import dense, in_blocks
from ckd.stages.teachers.recformer.checkpoint import open_frozen
from ckd.stages.teachers.recformer.config import RecformerConfig
from ckd.stages.teachers.recformer.encode import encode
from ckd.stages.teachers.recformer.files import checkpoint_files
from ckd.stages.teachers.recformer.network import Recformer
from ckd.stages.teachers.recformer.tokens import Inputs, ItemTokens, assemble, catalogue, token_counts, tokenise
from ckd.storage.corpus import Corpus, read_corpus
from ckd.storage.store import Store

ROOT = Path(__file__).parents[2]
ROUNDS = 5
PLAIN_BATCH = 32
AUTHORS_TOKENS = 1_024


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", action="store_true", help="the released size: width 768, 12 layers, 1,024 tokens")
    parser.add_argument("--attention", action="store_true", help="dense against blocks")
    parser.add_argument("--histories", type=int, help="histories to encode; 2,048 by default, 32 with --base")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.attention:
        compare_attention()
    else:
        compare_ways(chosen.base, chosen.histories or (32 if chosen.base else 2_048))


def compare_ways(base: bool, n: int) -> None:
    """Print histories and tokens per second of both ways."""
    corpus = _scientific()
    model, tokens = _network(base, corpus)
    limits = model.config.limits
    draw = np.random.default_rng(0)
    rows = np.sort(draw.choice(corpus.n_positions, n, replace=False))
    positions = corpus.positions()
    items = positions.position[rows].astype(np.int64)
    end = corpus.offsets[positions.user[rows]] + items
    length = token_counts(tokens, corpus.sequence, end, items, limits)

    def inputs(chosen: np.ndarray) -> Inputs:
        return assemble(tokens, corpus.sequence, end[chosen], items[chosen], limits)

    def ours() -> torch.Tensor:
        return encode(model, length, inputs, torch.device("cpu"))

    def plain() -> torch.Tensor:
        parts = [_padded(inputs(rows), limits.tokens) for rows in _in_order(n)]
        return torch.cat([model.hidden_states(part)[-1][:, 0] for part in parts])

    with torch.inference_mode():
        gap = float((ours() - plain()).abs().max())
        seconds = best_in_turn([plain, ours])
    total = int(length.sum())
    print(
        f"{n} histories, {total / n:.1f} tokens each (at most {limits.tokens}); largest difference between vectors "
        f"{gap:.1e}"
    )
    for name, taken in zip(("plain", "ckd"), seconds, strict=True):
        print(f"{name:6} {n / taken:10,.1f} histories/s {total / taken:12,.0f} tokens/s")
    print(f"{seconds[0] / seconds[1]:.1f} times as fast")


def compare_attention() -> None:
    """Print milliseconds of dense and blocked attention by length, for a window of 64 and the released width."""
    print("tokens   dense ms  blocks ms     (window 64, 12 heads of 64, 8,192 tokens in all)")
    draw = torch.Generator().manual_seed(0)
    for length in (64, 128, 256, 512, 1_024):
        shape = (8_192 // length, 12, length, 64)
        q, k, v = (torch.randn(shape, generator=draw) for _ in range(3))
        real = torch.ones(shape[0], length, dtype=torch.bool)
        with torch.inference_mode():
            seconds = best_in_turn(
                [lambda q=q, k=k, v=v, r=real, way=way: way(q, k, v, r, 32, 0.0) for way in (dense, in_blocks)]
            )
        print(f"{length:6} {1e3 * seconds[0]:10.1f} {1e3 * seconds[1]:10.1f}")


def best_in_turn(ways: list[Callable[[], object]]) -> list[float]:
    """Return the least seconds of each way, run one after the other for several rounds."""
    best = [float("inf")] * len(ways)
    for _ in range(ROUNDS):
        for number, way in enumerate(ways):
            started = time.perf_counter()
            way()
            best[number] = min(best[number], time.perf_counter() - started)
    return best


def _scientific() -> Corpus:
    with TemporaryDirectory() as folder:
        settings = DomainSettings(path=ROOT / "samples" / "scientific")
        return read_corpus(prepare_domain(Store(Path(folder)), "scientific", settings))


def _network(base: bool, corpus: Corpus) -> tuple[Recformer, ItemTokens]:
    folder = ROOT / "samples" / "teachers" / "recformer" / "pretrained"
    frozen = open_frozen(checkpoint_files({"checkpoint": str(folder)}, "scientific", "the bundled teacher"))
    model = frozen.model
    if base:
        torch.manual_seed(0)
        sizes = {
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3_072,
            "attention_window": (64,) * 12,
            "max_token_num": AUTHORS_TOKENS,
            "max_position_embeddings": 4_098,
            "max_item_embeddings": 51,
            "max_attr_length": 32,
        }
        model = Recformer(RecformerConfig(**(model.config.model_dump() | sizes))).eval()
    return model, tokenise(list(catalogue(corpus)), frozen.tokenizer, model.config.limits)


def _in_order(n: int) -> Iterator[np.ndarray]:
    for start in range(0, n, PLAIN_BATCH):
        yield np.arange(start, min(start + PLAIN_BATCH, n))


def _padded(inputs: Inputs, length: int) -> Inputs:
    missing = length - inputs.ids.shape[1]
    ids, place, types, real = (
        torch.nn.functional.pad(tensor, (0, missing), value=value)
        for tensor, value in zip(vars(inputs).values(), (1, 0, 3, False), strict=True)
    )
    return Inputs(ids, place, types, real)


if __name__ == "__main__":
    main()
