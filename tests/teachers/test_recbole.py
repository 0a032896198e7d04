"""Checkpoints as RecBole writes them, of any sizes: read whole, scored as written down here, refused by name."""

import math
from collections import OrderedDict
from itertools import product

import numpy as np
import pytest
import torch

from ckd.stages.teachers.unisrec.recbole import read_recbole
from ckd.storage.errors import UserError

N_ITEMS = 9
SMALL = {
    "hidden_size": 6,
    "n_layers": 1,
    "n_heads": 3,
    "inner_size": 5,
    "hidden_act": "relu",
    "layer_norm_eps": "1e-12",
    "temperature": 0.07,
    "n_exps": 2,
    "adaptor_layers": [4, 6],
    "MAX_ITEM_LIST_LENGTH": 7,
    "train_stage": "transductive_ft",
    "hidden_dropout_prob": 0.5,
    "attn_dropout_prob": 0.4,
    "adaptor_dropout_prob": 0.2,
    "plm_size": 4,
    "learner": "adam",
}
OTHERS = {
    "small": SMALL,
    "deep and narrow": SMALL
    | {"hidden_size": 4, "adaptor_layers": [10, 4], "n_layers": 5, "n_heads": 1, "hidden_act": "gelu", "n_exps": 1},
    "wide": SMALL
    | {"hidden_size": 20, "adaptor_layers": [3, 20], "n_heads": 5, "inner_size": 1, "hidden_act": "tanh", "n_exps": 6},
    "one item long": SMALL | {"MAX_ITEM_LIST_LENGTH": 1, "hidden_act": "sigmoid", "n_heads": 6, "temperature": 1},
    "large eps": SMALL | {"layer_norm_eps": 0.5, "hidden_act": "swish", "MAX_ITEM_LIST_LENGTH": "13", "n_layers": 2.0},
    "widths as a tuple, and one more that is not used": SMALL | {"adaptor_layers": (4, 6, 300)},
}
STAGES = ("pretrain", "inductive_ft", "transductive_ft")


def shapes(final):
    """Every tensor of a file, written down from the authors' model."""
    d, inner, experts = (int(final[key]) for key in ("hidden_size", "inner_size", "n_exps"))
    p = final["adaptor_layers"][0]
    yield "position_embedding.weight", (int(final["MAX_ITEM_LIST_LENGTH"]), d)
    for layer in range(int(final["n_layers"])):
        at = f"trm_encoder.layer.{layer}"
        for name in ("query", "key", "value", "dense"):
            yield f"{at}.multi_head_attention.{name}.weight", (d, d)
            yield f"{at}.multi_head_attention.{name}.bias", (d,)
        yield f"{at}.feed_forward.dense_1.weight", (inner, d)
        yield f"{at}.feed_forward.dense_1.bias", (inner,)
        yield f"{at}.feed_forward.dense_2.weight", (d, inner)
        yield f"{at}.feed_forward.dense_2.bias", (d,)
        for part, kind in product(("multi_head_attention", "feed_forward"), ("weight", "bias")):
            yield f"{at}.{part}.LayerNorm.{kind}", (d,)
    yield "LayerNorm.weight", (d,)
    yield "LayerNorm.bias", (d,)
    yield "moe_adaptor.w_gate", (p, experts)
    yield "moe_adaptor.w_noise", (p, experts)
    for expert in range(experts):
        yield f"moe_adaptor.experts.{expert}.bias", (p,)
        yield f"moe_adaptor.experts.{expert}.lin.weight", (d, p)
    if final["train_stage"] != "pretrain":
        yield "plm_embedding.weight", (N_ITEMS + 1, p)
    if final["train_stage"] == "transductive_ft":
        yield "item_embedding.weight", (N_ITEMS + 1, d)


def tensors_of(final, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return OrderedDict((name, torch.randn(shape, generator=draw)) for name, shape in shapes(final))


class Reference:
    """The authors' forward pass in numpy, float64, dense, one sequence at a time. Items are 1 to n."""

    def __init__(self, final, tensors, text):
        self.final, self.text = final, text.astype(np.float64)
        self.w = {name: tensor.double().numpy() for name, tensor in tensors.items()}

    def linear(self, name, x):
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def norm(self, name, x):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + float(self.final["layer_norm_eps"]))
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def activation(self, x):
        sigmoid = 1 / (1 + np.exp(-x))
        erf = np.vectorize(math.erf)(x / math.sqrt(2))
        return {
            "gelu": x * (1 + erf) / 2,
            "relu": x * (x > 0),
            "swish": x * sigmoid,
            "tanh": np.tanh(x),
            "sigmoid": sigmoid,
        }[self.final["hidden_act"]]

    def gates(self):
        power = np.exp(self.text @ self.w["moe_adaptor.w_gate"])
        return power / power.sum(-1, keepdims=True)

    def items(self):
        """Vectors of all rows, before normalisation."""
        table = 0
        for expert, gate in enumerate(self.gates().T):
            at = f"moe_adaptor.experts.{expert}"
            table = table + gate[:, None] * ((self.text - self.w[f"{at}.bias"]) @ self.w[f"{at}.lin.weight"].T)
        return table + self.w.get("item_embedding.weight", 0)

    def attention(self, at, x):
        heads, length = int(self.final["n_heads"]), len(x)
        q, k, v = (self.linear(f"{at}.{name}", x) for name in ("query", "key", "value"))
        width, mixed = q.shape[1] // heads, np.zeros_like(q)
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            for now in range(length):
                logits = k[: now + 1, part] @ q[now, part] / math.sqrt(width)
                weights = np.exp(logits - logits.max())
                mixed[now, part] = weights @ v[: now + 1, part] / weights.sum()
        return self.norm(f"{at}.LayerNorm", self.linear(f"{at}.dense", mixed) + x)

    def state(self, ids):
        """Vector of a history."""
        x = self.norm("LayerNorm", self.items()[ids] + self.w["position_embedding.weight"][: len(ids)])
        for layer in range(int(self.final["n_layers"])):
            at = f"trm_encoder.layer.{layer}"
            x = self.attention(f"{at}.multi_head_attention", x)
            inner = self.activation(self.linear(f"{at}.feed_forward.dense_1", x))
            x = self.norm(f"{at}.feed_forward.LayerNorm", self.linear(f"{at}.feed_forward.dense_2", inner) + x)
        return x[-1]

    def scores(self, ids):
        state, items = self.state(ids), self.items()
        return items @ state / np.linalg.norm(items, axis=-1) / np.linalg.norm(state)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_other_sizes_is_read_whole_and_scored_as_written_down(name, stage, protocol, write_recbole, tmp_path):
    final = OTHERS[name] | {"train_stage": stage}
    tensors = tensors_of(final)
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}}
    best = {"cur_step": 0, "best_valid_score": np.float64(0.25), "other_parameter": None, "optimizer": optimizer}
    checkpoint = read_recbole(write_recbole(tmp_path / "u.pth", final, tensors, protocol, **best))

    read = dict(checkpoint.weights)
    read |= {"plm_embedding.weight": checkpoint.text} if checkpoint.text is not None else {}
    read |= {"item_embedding.weight": checkpoint.ids} if checkpoint.ids is not None else {}
    assert read.keys() == tensors.keys()
    assert all(torch.equal(torch.as_tensor(read[key]), tensors[key]) for key in tensors)
    assert checkpoint.stage == stage
    network = checkpoint.network.model_dump()
    assert network["temperature"] == final["temperature"]
    assert (network["hidden_dropout"], network["attention_dropout"], network["adaptor_dropout"]) == (0.5, 0.4, 0.2)

    text = np.random.default_rng(1).normal(size=(N_ITEMS + 1, final["adaptor_layers"][0])).astype(np.float32)
    reference = Reference(final, tensors, text)
    model = checkpoint.model().double()
    table = model.item_table(torch.from_numpy(text[1:]).double())
    np.testing.assert_allclose(table.detach().numpy(), reference.items()[1:], rtol=0, atol=1e-12)
    unit = torch.nn.functional.normalize(table, dim=-1)
    for ids in ([1], [3, 3, 9, 1], [9, 8, 7, 6, 5, 4, 3, 2, 1]):
        cut = ids[-int(final["MAX_ITEM_LIST_LENGTH"]) :]
        state = model.encode(table[torch.tensor(cut) - 1].unsqueeze(0))[0, -1]
        np.testing.assert_allclose(state.detach().numpy(), reference.state(cut), rtol=0, atol=1e-9)
        found = unit @ torch.nn.functional.normalize(state, dim=-1)
        np.testing.assert_allclose(found.detach().numpy(), reference.scores(cut)[1:], rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_float32(dtype, write_recbole, tmp_path):
    tensors = {name: tensor.to(dtype) for name, tensor in tensors_of(SMALL).items()}
    checkpoint = read_recbole(write_recbole(tmp_path / "u.pth", SMALL, tensors))
    assert all(torch.equal(tensor, tensors[name].float()) for name, tensor in checkpoint.weights.items())
    assert {tensor.dtype for tensor in checkpoint.weights.values()} == {torch.float32}
    assert checkpoint.text.dtype == np.float32


def test_tensors_that_are_views_are_read_as_what_they_are(write_recbole, tmp_path):
    tensors = tensors_of(SMALL)
    views = {name: t.T.contiguous().T if t.dim() == 2 else t for name, t in tensors.items()}
    assert not any(t.is_contiguous() for t in views.values() if t.dim() == 2 and min(t.shape) > 1)
    views["trm_encoder.layer.0.multi_head_attention.key.bias"] = views["LayerNorm.bias"]
    tensors["trm_encoder.layer.0.multi_head_attention.key.bias"] = tensors["LayerNorm.bias"]
    checkpoint = read_recbole(write_recbole(tmp_path / "u.pth", SMALL, views))
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in checkpoint.weights.items())


def test_rows_of_the_id_table_are_chosen_and_the_padding_item_is_left_out(write_recbole, tmp_path):
    tensors = tensors_of(SMALL)
    checkpoint = read_recbole(write_recbole(tmp_path / "u.pth", SMALL, tensors))
    ids = tensors["item_embedding.weight"]
    assert torch.equal(checkpoint.model().item_embedding.weight, ids[1:])
    rows = np.array([4, 1, 9])
    assert torch.equal(checkpoint.model(rows).item_embedding.weight, ids[rows])


# --- what is not read


@pytest.fixture
def line_of(write_recbole, tmp_path):
    """A function that writes a file and gives the line that answers it, without the file's name."""

    def ask(final=SMALL, tensors=None, path=None):
        if path is None:
            path = write_recbole(tmp_path / "u.pth", final, tensors_of(SMALL) if tensors is None else tensors)
        with pytest.raises(UserError) as caught:
            read_recbole(path)
        (line,) = str(caught.value).splitlines()
        assert line.startswith(str(path))
        return line.removeprefix(str(path)).lstrip(": ")

    return ask


SCORING = [key for key in SMALL if key not in ("plm_size", "learner")]


@pytest.mark.parametrize("key", SCORING)
def test_no_hyper_parameter_is_assumed(line_of, key):
    final = {name: value for name, value in SMALL.items() if name != key}
    assert line_of(final) == f"its configuration has no {key}, without which scores cannot be computed"


WRONG = [
    ("hidden_size", 12, "adaptor_layers in its configuration: [4, 6]; the second one must be hidden_size, 12"),
    ("n_layers", 2, "n_layers is 2 in its configuration, but it holds tensors of 1"),
    ("n_layers", 0, "n_layers in its configuration: 0; Input should be greater than or equal to 1"),
    ("n_layers", 10**12, "n_layers in its configuration: an object; a number is expected"),
    ("n_exps", 3, "n_exps is 3 in its configuration, but it holds tensors of 2"),
    ("n_heads", 4, "hidden_size, n_heads in its configuration: 6, 4; hidden (6) must be a multiple of heads (4)"),
    ("n_heads", "two", "n_heads in its configuration: 'two'; a number is expected"),
    ("n_heads", True, "n_heads in its configuration: True; a number is expected"),
    ("n_heads", [2], "n_heads in its configuration: [2]; a number is expected"),
    ("n_heads", 1.5, "n_heads in its configuration: 1.5; Input should be a valid integer"),
    (
        "inner_size",
        8,
        "inner_size is 8 in its configuration, but tensor "
        "trm_encoder.layer.0.feed_forward.dense_1.weight has shape [5, 6]",
    ),
    ("hidden_act", "silu", "hidden_act in its configuration: 'silu'; expected one of gelu, relu, swish, tanh, sigmoid"),
    ("layer_norm_eps", 0, "layer_norm_eps in its configuration: 0; Input should be greater than 0"),
    ("layer_norm_eps", "nan", "layer_norm_eps in its configuration: 'nan'; Input should be a finite number"),
    ("temperature", -0.1, "temperature in its configuration: -0.1; Input should be greater than 0"),
    ("hidden_dropout_prob", 1.0, "hidden_dropout_prob in its configuration: 1.0; Input should be less than 1"),
    (
        "adaptor_layers",
        [4],
        "adaptor_layers in its configuration: [4]; two widths are expected, of the text vectors and of the items",
    ),
    (
        "adaptor_layers",
        4,
        "adaptor_layers in its configuration: 4; two widths are expected, of the text vectors and of the items",
    ),
    ("adaptor_layers", [4, 5], "adaptor_layers in its configuration: [4, 5]; the second one must be hidden_size, 6"),
    (
        "adaptor_layers",
        [5, 6],
        "adaptor_layers[0] is 5 in its configuration, but tensor moe_adaptor.w_gate has shape [4, 2]",
    ),
    (
        "MAX_ITEM_LIST_LENGTH",
        8,
        "MAX_ITEM_LIST_LENGTH is 8 in its configuration, but tensor position_embedding.weight has shape [7, 6]",
    ),
    (
        "train_stage",
        "finetune",
        "train_stage in its configuration: 'finetune'; expected one of pretrain, inductive_ft, transductive_ft",
    ),
    (
        "train_stage",
        None,
        "train_stage in its configuration: None; expected one of pretrain, inductive_ft, transductive_ft",
    ),
    (
        "train_stage",
        "pretrain",
        "tensor plm_embedding.weight is not part of the UniSRec that its configuration "
        "describes (train_stage pretrain)",
    ),
    (
        "train_stage",
        "inductive_ft",
        "tensor item_embedding.weight is not part of the UniSRec that its configuration "
        "describes (train_stage inductive_ft)",
    ),
]


@pytest.mark.parametrize(("key", "value", "expected"), WRONG)
def test_a_wrong_hyper_parameter_is_named_with_what_is_expected(line_of, key, value, expected):
    assert line_of(SMALL | {key: value}).startswith(expected)


@pytest.mark.parametrize("name", [name for name, _ in shapes(SMALL)])
def test_a_missing_tensor_and_one_of_another_shape_are_named(line_of, name):
    tensors = tensors_of(SMALL)
    shape = list(tensors[name].shape)
    del tensors[name]
    said = line_of(tensors=tensors)
    assert said.startswith(f"tensor {name} is missing; expected shape {shape}")
    said = line_of(tensors=tensors_of(SMALL) | {name: torch.zeros(*shape, 1)})
    # A table alone says how many items there are, so the one beside it may be the one that does not fit.
    assert f"tensor {name} has shape {[*shape, 1]}" in said


def test_tables_of_different_length_are_refused(line_of):
    tensors = tensors_of(SMALL) | {"item_embedding.weight": torch.zeros(N_ITEMS, 6)}
    assert line_of(tensors=tensors) == (
        "tensor item_embedding.weight has shape [9, 6], its configuration asks for [10, 6]"
    )


def test_an_unknown_tensor_is_named(line_of):
    said = "tensor extra is not part of the UniSRec that its configuration describes (train_stage transductive_ft)"
    assert line_of(tensors=tensors_of(SMALL) | {"extra": torch.zeros(1)}) == said


def test_a_value_that_is_no_weight_is_named(line_of):
    name = "moe_adaptor.w_gate"
    tensors = tensors_of(SMALL)
    tensors[name][1, 1] = float("nan")
    assert line_of(tensors=tensors) == f"tensor {name} holds NaN or infinity"
    whole = tensors[name].nan_to_num().long()
    assert "is of torch.int64; weights are floating-point numbers" in line_of(tensors=tensors | {name: whole})
    assert line_of(tensors=tensors | {name: "text"}) == f"{name} is no tensor that can be read"


@pytest.mark.parametrize("final", [None, [], {}, {1: 2}, "text"])
def test_a_configuration_that_is_none_is_refused(line_of, final):
    assert line_of(final) == "is no checkpoint of RecBole: a config with a final_config_dict is missing"


@pytest.mark.parametrize("tensors", [{}, [torch.ones(2)], {1: torch.ones(2)}, {"two\nlines": torch.ones(2)}])
def test_a_state_dictionary_that_is_none_is_refused(line_of, tensors):
    assert line_of(tensors=tensors) == "is no checkpoint of RecBole: a state_dict is missing"


@pytest.mark.parametrize("content", [torch.ones(2), [1], {"state_dict": {"w": torch.ones(2)}}, {"a": 1}, None])
def test_a_file_of_something_else_is_refused(line_of, tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    assert "is no checkpoint of RecBole" in line_of(path=tmp_path / "other.pth")


def test_values_of_any_depth_in_the_configuration_are_not_printed(line_of):
    inner = []
    for _ in range(50):
        inner = [inner]
    assert line_of(SMALL | {"n_heads": inner}) == "n_heads in its configuration: []; a number is expected"
    assert line_of(SMALL | {"n_heads": 10**5000}) == "n_heads in its configuration: an object; a number is expected"
