"""A UniSRec in plain numpy, written from the authors' released code (arXiv 2206.05941), not the code under test."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file


class DenseUniSRec:
    """One history at a time, float64, no batching, no padding, no causal trick."""

    def __init__(self, folder: Path) -> None:
        self.network = json.loads((folder / "config.json").read_text())["network"]
        self.t = {name: array.astype(np.float64) for name, array in load_file(folder / "model.safetensors").items()}

    def items(self, text):
        """Adaptor output of every item: gates softmax(x W), experts (x - b) W^T."""
        gates = self._softmax(text @ self.t["moe_adaptor.w_gate"])
        experts = [
            (text - self.t[f"moe_adaptor.experts.{e}.bias"]) @ self.t[f"moe_adaptor.experts.{e}.lin.weight"].T
            for e in range(self.network["experts"])
        ]
        return sum(gates[:, e : e + 1] * expert for e, expert in enumerate(experts))

    def sequence(self, items):
        """Vector of one history [L, d], oldest first, already cut to the maximum length."""
        x = self._norm(items + self.t["position_embedding.weight"][: len(items)], "LayerNorm")
        for layer in range(self.network["layers"]):
            x = self._block(x, f"trm_encoder.layer.{layer}")
        return x[-1]

    def _block(self, x, name):
        attention, d, heads = f"{name}.multi_head_attention", x.shape[1], self.network["heads"]
        q, k, v = (self._linear(x, f"{attention}.{part}") for part in ("query", "key", "value"))
        mixed = np.empty_like(x)
        for head in np.split(np.arange(d), heads):
            logits = q[:, head] @ k[:, head].T / math.sqrt(d / heads)
            later = np.triu(np.ones((len(x), len(x)), bool), 1)
            mixed[:, head] = self._softmax(np.where(later, logits - 10_000.0, logits)) @ v[:, head]
        x = self._norm(self._linear(mixed, f"{attention}.dense") + x, f"{attention}.LayerNorm")
        inner = self._linear(x, f"{name}.feed_forward.dense_1")
        inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        return self._norm(self._linear(inner, f"{name}.feed_forward.dense_2") + x, f"{name}.feed_forward.LayerNorm")

    def _linear(self, x, name):
        return x @ self.t[f"{name}.weight"].T + self.t[f"{name}.bias"]

    def _norm(self, x, name):
        centred = x - x.mean(1, keepdims=True)
        scale = np.sqrt((centred**2).mean(1, keepdims=True) + self.network["layer_norm_eps"])
        return centred / scale * self.t[f"{name}.weight"] + self.t[f"{name}.bias"]

    @staticmethod
    def _softmax(x):
        shifted = np.exp(x - x.max(-1, keepdims=True))
        return shifted / shifted.sum(-1, keepdims=True)


@pytest.fixture(scope="session")
def dense(world):
    """The world's teacher in plain numpy."""
    return DenseUniSRec(world.teacher)
