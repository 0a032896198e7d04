"""Recformers of other sizes, against one that is written here: token by token, head by head, in float64 numpy.

Nothing is shared with the code under test, not even the tokenizer. The weights are written as the authors write theirs.
"""

import json
import math
import re
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import torch
from tokenizers import ByteLevelBPETokenizer

from ckd.stages.teachers.contract import Opening
from ckd.stages.teachers.recformer import Settings, open_teacher
from ckd.storage.corpus import Corpus

CPU = torch.device("cpu")
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
ITEMS = [
    ("Steel tape, 5 m wide", "Acme & Sons", "Tools Tape"),
    ("Red paper", None, "Office Paper"),
    ("paper  paper paper paper paper paper", "paper", "paper paper paper"),
    ("", "Acme & Sons", None),
    ("Nail box (200) it's the nail's", "ÖKO", "Tools Nails - 4mm"),
    ("ink", "ink", "ink"),
    (" Blue glue\tand pens!!", "Pen's", "Office Glue"),
    ("Größe 12 über-Kleber", "", "日本 Büro"),
    ("tape tape", "Acme", "Tape"),
]
HISTORIES = [[0], [3], [5, 1], [2, 2, 2], [8, 7, 6, 5, 4, 3, 2, 1, 0], [4, 0, 6, 4, 1], [1, 5, 8, 3, 5, 1, 0]]


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu_new": tanh_gelu,
    "gelu": lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
}


class Case(NamedTuple):
    """What of a configuration is unlike that of another case, and how the file is laid out."""

    layout: str
    fields: dict


CASES = {
    "bare, relu, a window per layer": Case(
        "bare",
        {
            "hidden_act": "relu",
            "hidden_size": 24,
            "num_attention_heads": 3,
            "intermediate_size": 17,
            "attention_window": [4, 10, 2],
            "max_token_num": 43,
            "max_item_embeddings": 6,
            "max_attr_num": 3,
            "max_attr_length": 7,
            "temp": 0.07,
        },
    ),
    "language head, gelu_new, two attributes": Case(
        "longformer",
        {
            "hidden_act": "gelu_new",
            "hidden_size": 10,
            "num_attention_heads": 5,
            "intermediate_size": 30,
            "attention_window": [2, 2, 6, 4],
            "max_token_num": 200,
            "max_item_embeddings": 4,
            "max_attr_num": 2,
            "max_attr_length": 5,
            "temp": 0.2,
        },
    ),
    "fine-tuned, silu, one number for all windows": Case(
        "fine-tuned",
        {
            "hidden_act": "silu",
            "hidden_size": 12,
            "num_attention_heads": 2,
            "intermediate_size": 20,
            "attention_window": 6,
            "max_token_num": 30,
            "max_item_embeddings": 9,
            "max_attr_num": 12,
            "max_attr_length": 32,
            "temp": 0.05,
        },
    ),
    "Lightning, gelu, one layer": Case(
        "lightning",
        {
            "hidden_act": "gelu",
            "hidden_size": 8,
            "num_attention_heads": 1,
            "intermediate_size": 8,
            "attention_window": [64],
            "max_token_num": 512,
            "max_item_embeddings": 51,
            "max_attr_num": 3,
            "max_attr_length": 32,
            "temp": 1.0,
        },
    ),
}


class ByteLevelBPE:
    """Byte-pair encoding by the two files, one merge at a time."""

    def __init__(self, folder):
        self.ids = json.loads((folder / "vocab.json").read_text())
        lines = (folder / "merges.txt").read_text().splitlines()
        pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#")]
        self.rank = {pair: number for number, pair in enumerate(pairs)}
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in printable]
        self.letter = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}

    def __call__(self, text):
        pattern = r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+"
        return [self.ids[piece] for word in re.findall(pattern, text) for piece in self.pieces(word)]

    def pieces(self, word):
        parts = [self.letter[byte] for byte in word.encode()]
        while len(parts) > 1:
            ranks = [self.rank.get(pair, math.inf) for pair in pairwise(parts)]
            best = int(np.argmin(ranks))
            if ranks[best] == math.inf:
                break
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        return parts


class DenseRecformer:
    """One sequence at a time, one attention row at a time."""

    def __init__(self, config, tensors, encode):
        self.c, self.encode = config, encode
        self.t = {name: tensor.double().numpy() for name, tensor in tensors.items()}
        window = config["attention_window"]
        self.windows = window if isinstance(window, list) else [window] * config["num_hidden_layers"]

    def item_tokens(self, item):
        pairs = list(zip(("title", "brand", "category"), item, strict=True))[: self.c["max_attr_num"]]
        tokens = []
        for name, value in pairs:
            own = [(token, 1) for token in self.encode(name)] + [(token, 2) for token in self.encode(value or "")]
            tokens += own[: self.c["max_attr_length"]]
        return tokens

    def vector(self, items):
        """Of a history, oldest first."""
        tokens = [(0, 0, 0)]
        for place, item in enumerate(list(reversed(items))[: self.c["max_item_embeddings"] - 1], start=1):
            tokens += [(token, kind, place) for token, kind in self.item_tokens(item)]
        x = np.stack([self.embedded(at, *each) for at, each in enumerate(tokens[: self.c["max_token_num"]])])
        x = self.norm(x, "embeddings.LayerNorm")
        for layer, window in enumerate(self.windows):
            x = self.layer(x, f"encoder.layer.{layer}", window)
        return x[0]

    def embedded(self, at, token, kind, place):
        rows = {"word": token, "position": at + 2, "token_type": kind, "item_position": place}
        return sum(self.t[f"embeddings.{name}_embeddings.weight"][row] for name, row in rows.items())

    def layer(self, x, name, window):
        q, k, v = (self.linear(x, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
        qg, kg, vg = (self.linear(x, f"{name}.attention.self.{part}_global") for part in ("query", "key", "value"))
        mixed = np.zeros_like(x)
        for head in np.split(np.arange(x.shape[1]), self.c["num_attention_heads"]):
            mixed[0, head] = self.row(qg[0, head], kg[:, head], vg[:, head], range(len(x)))
            for i in range(1, len(x)):
                seen = [j for j in range(len(x)) if j == 0 or abs(i - j) <= window // 2]
                mixed[i, head] = self.row(q[i, head], k[:, head], v[:, head], seen)
        attended = self.linear(mixed, f"{name}.attention.output.dense")
        x = self.norm(attended + x, f"{name}.attention.output.LayerNorm")
        inner = ACTIVATIONS[self.c["hidden_act"]](self.linear(x, f"{name}.intermediate.dense"))
        return self.norm(self.linear(inner, f"{name}.output.dense") + x, f"{name}.output.LayerNorm")

    def linear(self, x, name):
        return x @ self.t[f"{name}.weight"].T + self.t[f"{name}.bias"]

    def norm(self, x, name):
        variance = x.var(1, keepdims=True)
        normed = (x - x.mean(1, keepdims=True)) / np.sqrt(variance + self.c["layer_norm_eps"])
        return normed * self.t[f"{name}.weight"] + self.t[f"{name}.bias"]

    @staticmethod
    def row(query, keys, values, seen):
        logits = np.array([query @ keys[j] for j in seen]) / math.sqrt(len(query))
        weights = np.exp(logits - logits.max())
        return sum(weight * values[j] for weight, j in zip(weights, seen, strict=True)) / weights.sum()


def random_tensors(config, generator):
    h, f = config["hidden_size"], config["intermediate_size"]
    linear = {"query": (h, h), "key": (h, h), "value": (h, h)}
    linear |= {f"{name}_global": (h, h) for name in ("query", "key", "value")}
    shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], h),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], h),
        "embeddings.token_type_embeddings.weight": (config["token_type_size"], h),
        "embeddings.item_position_embeddings.weight": (config["max_item_embeddings"], h),
        "embeddings.LayerNorm.weight": (h,),
        "embeddings.LayerNorm.bias": (h,),
    }
    for layer in range(config["num_hidden_layers"]):
        own = {f"attention.self.{name}": shape for name, shape in linear.items()}
        own |= {"attention.output.dense": (h, h), "intermediate.dense": (f, h), "output.dense": (h, f)}
        for name, shape in own.items():
            shapes |= {f"encoder.layer.{layer}.{name}.weight": shape, f"encoder.layer.{layer}.{name}.bias": shape[:1]}
        for name in ("attention.output", "output"):
            shapes |= {f"encoder.layer.{layer}.{name}.LayerNorm.{part}": (h,) for part in ("weight", "bias")}
    return {name: 0.5 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write(folder, case, seed=3):
    """Write a checkpoint as the authors do; return its weights file, the reference and the item table it stores."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = ByteLevelBPETokenizer()
    texts = [text for item in ITEMS for text in item if text] * 3
    tokenizer.train_from_iterator(texts, vocab_size=320, special_tokens=SPECIALS, show_progress=False)
    tokenizer.save_model(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text())
    vocabulary["<mask>"] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    window = case.fields["attention_window"]
    config = {
        "model_type": "longformer",
        "vocab_size": len(vocabulary),
        "num_hidden_layers": len(window) if isinstance(window, list) else 2,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": case.fields["max_token_num"] + 5,
        "token_type_size": 4,
        "pooler_type": "cls",
        **case.fields,
    }
    (folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(seed)
    tensors = random_tensors(config, generator)
    reference = DenseRecformer(config, tensors, ByteLevelBPE(folder))
    saved = {"embeddings.position_ids": torch.arange(config["max_position_embeddings"])[None], **tensors}
    table = None
    if case.layout != "bare":
        saved = {f"longformer.{name}": tensor for name, tensor in saved.items()}
    if case.layout in ("longformer", "lightning"):
        saved |= {"lm_head.bias": torch.zeros(len(vocabulary)), "lm_head.decoder.bias": torch.zeros(len(vocabulary))}
    if case.layout == "fine-tuned":
        table = torch.randn(len(ITEMS), config["hidden_size"], generator=generator)
        saved["item_embedding.weight"] = table
    content = saved
    if case.layout == "lightning":
        content = {"epoch": 3, "state_dict": {f"model.{name}": tensor for name, tensor in saved.items()}}
    path = folder / ("last.ckpt" if case.layout == "lightning" else "weights.bin")
    torch.save(content, path)
    return path, reference, table


@pytest.fixture
def corpus():
    """Each history is a user's, with one item behind it."""
    titles, brands, categories = zip(*ITEMS, strict=True)
    sequences = [[*history, 0, 0] if len(history) < 2 else [*history, 0] for history in HISTORIES]
    items = {
        "item": np.arange(len(ITEMS), dtype=np.int32),
        "item_id": [f"item-{code}" for code in range(len(ITEMS))],
        "title": pa.array(titles, pa.string()),
        "brand": pa.array(brands, pa.string()),
        "categories": pa.array(categories, pa.string()),
        "description": ["not read"] * len(ITEMS),
    }
    offsets = np.cumsum([0, *map(len, sequences)])
    users = pa.array([f"u{number}" for number in range(len(sequences))])
    return Corpus("key", pa.table(items), users, offsets, np.concatenate(sequences).astype(np.int32))


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_a_plain_recformer(case, precision, corpus, tmp_path):
    path, reference, table = write(tmp_path / "authors", CASES[case])
    named = {}
    if table is not None:
        named["item_ids"] = str(tmp_path / "smap.json")
        (tmp_path / "smap.json").write_text(
            json.dumps({item: row for row, item in enumerate(corpus.items["item_id"].to_pylist())})
        )
    settings = Settings(checkpoint=str(path), precision=precision, **named)
    teacher = open_teacher(Opening(settings, settings.files("tiny", "teachers.rec"), corpus, None, CPU))
    vectors = np.stack([reference.vector([item]) for item in ITEMS]) if table is None else table.double().numpy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = np.stack([reference.vector([ITEMS[code] for code in history]) for history in HISTORIES])
    queries /= np.linalg.norm(queries, axis=1, keepdims=True) * CASES[case].fields["temp"]
    lengths = np.array([len(history) for history in HISTORIES], np.int32)
    found = teacher.queries_at(np.arange(len(HISTORIES), dtype=np.int32), lengths).numpy()
    scale, atol = np.abs(queries).max(), {"float64": 1e-11, "float32": 3e-6}[precision]
    np.testing.assert_allclose(found / scale, queries / scale, rtol=0, atol=atol)
    np.testing.assert_allclose(teacher.item_vectors().numpy(), vectors, rtol=0, atol=3e-6)
