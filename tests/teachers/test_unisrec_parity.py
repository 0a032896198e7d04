"""UniSRec's network computes from its authors' files what their code computed; see tests/fixtures/unisrec/README.md.

Every size, length and activation is read from the files: `CKD_FIXTURES=folder pytest -m parity` checks any other folder
of the same layout.
"""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ckd.stages.evaluate.metrics import metrics
from ckd.stages.evaluate.ranking import pessimistic_rank
from ckd.stages.teachers.unisrec.pretrain import sequence_item_loss, sequence_sequence_loss

pytestmark = pytest.mark.parity

# What the fixtures' README suggests: two orders of float32 summation may differ by this much.
SCORES, STATES, ITEMS = 2e-6, 1e-5, 1e-6
# Relative to the size of numbers that are not bounded as cosines are.
RELATIVE = 1e-5
DOUBLE = 1e-11


def only(*stages):
    """Run a test with the checkpoints of these stages."""

    def mark(test):
        test.stages = stages
        return test

    return mark


def histories(golden):
    limit = golden.model.settings.max_length
    sequences = json.loads((golden.folder / "sequences.json").read_text())
    return [torch.tensor(sequence[-limit:]) - 1 for sequence in sequences]


@torch.inference_mode()
def states_of(golden, sequences, together):
    """Vector at the end of each history: one by one, or all in one padded batch."""
    table = golden.model.item_table(golden.text)
    if not together:
        return torch.stack([golden.model.encode(table[codes].unsqueeze(0))[0, -1] for codes in sequences])
    padded = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    encoded = golden.model.encode(table[padded])
    return encoded[torch.arange(len(sequences)), torch.tensor([len(codes) - 1 for codes in sequences])]


def cosine(golden, states):
    with torch.inference_mode():
        table = golden.model.item_table(golden.text)
        return (F.normalize(states, dim=-1) @ F.normalize(table, dim=-1).T).numpy()


def double(golden):
    """The same in double precision."""
    return type(golden)(golden.checkpoint, golden.model.double(), golden.text.double(), golden.folder)


def rows(golden, split):
    """(history, target) of a split in codes, from the authors' raw indices."""
    raws = json.loads((golden.folder / "item_id_map.json").read_text())["internal_to_raw"]
    internal = {raw: number for number, raw in enumerate(raws)}
    (file,) = (golden.folder / "data").glob(f"*.{split}.inter")
    limit = golden.model.settings.max_length
    for line in file.read_text().splitlines()[1:]:
        _, history, target = line.split("\t")
        codes = torch.tensor([internal[int(raw)] - 1 for raw in history.split()])
        yield codes[-limit:], internal[int(target)] - 1


def test_there_are_files_of_all_three_stages(authors):
    stages = json.loads((authors / "unisrec" / "config.json").read_text())["train_stage_by_file"]
    assert {path.name for path in (authors / "unisrec").glob("*.pth")} == set(stages)
    assert set(stages.values()) == {"pretrain", "inductive_ft", "transductive_ft"}


def test_settings_and_tables_are_the_authors(golden):
    theirs = json.loads((golden.folder / "config.json").read_text())
    network = golden.checkpoint.network
    found = {
        "hidden_size": network.hidden,
        "n_exps": network.experts,
        "n_layers": network.layers,
        "n_heads": network.heads,
        "inner_size": network.inner,
        "MAX_ITEM_LIST_LENGTH": network.max_length,
        "hidden_act": network.activation,
        "layer_norm_eps": network.layer_norm_eps,
        "temperature": network.temperature,
        "hidden_dropout_prob": network.hidden_dropout,
        "attn_dropout_prob": network.attention_dropout,
        "adaptor_dropout_prob": network.adaptor_dropout,
    }
    assert found == {key: theirs[key] for key in found}
    assert golden.checkpoint.stage == theirs["train_stage_by_file"][golden.checkpoint.path.name]
    assert golden.checkpoint.text_dimensions == theirs["adaptor_layers"][0]
    if golden.checkpoint.stage == "pretrain":
        assert golden.checkpoint.text is None
    else:
        np.testing.assert_array_equal(golden.checkpoint.text, np.load(golden.folder / "plm_embeddings.npy"))


def test_item_vectors_are_the_authors(golden):
    with torch.inference_mode():
        found = golden.model.moe_adaptor(golden.text).numpy()
    np.testing.assert_allclose(found, golden.array("expected_item_emb")[1:], rtol=RELATIVE, atol=ITEMS)


def test_the_item_table_adds_the_id_row_where_there_is_one(golden):
    with torch.inference_mode():
        table, adapted = golden.model.item_table(golden.text), golden.model.moe_adaptor(golden.text)
        some = torch.tensor([2, 0, 2])
        torch.testing.assert_close(golden.model.item_table(golden.text[some], some), table[some], rtol=0, atol=ITEMS)
    ids = golden.checkpoint.ids
    assert (ids is None) == (golden.checkpoint.stage != "transductive_ft")
    assert torch.equal(table, adapted if ids is None else adapted + ids[1:])


@only("inductive_ft")
def test_gates_are_the_authors(golden):
    with torch.inference_mode():
        found = golden.model.moe_adaptor.gates(golden.text).numpy()
    np.testing.assert_allclose(found, np.load(golden.folder / "expected_gates.npy")[1:], rtol=0, atol=ITEMS)


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "padded batch"])
def test_sequence_vectors_are_the_authors(golden, together):
    found = states_of(golden, histories(golden), together).numpy()
    np.testing.assert_allclose(found, golden.array("expected_seq_output"), rtol=RELATIVE, atol=STATES)


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "padded batch"])
def test_scores_are_the_authors(golden, together):
    found = cosine(golden, states_of(golden, histories(golden), together))
    expected = np.load(golden.folder / f"expected_{golden.name}.npy")
    np.testing.assert_allclose(found, expected[:, 1:], rtol=0, atol=SCORES)


def test_scores_in_double_precision_are_the_authors(golden):
    golden = double(golden)
    found = cosine(golden, states_of(golden, histories(golden), True))
    expected = np.load(golden.folder / f"expected_{golden.name}_float64.npy")
    np.testing.assert_allclose(found, expected[:, 1:], rtol=0, atol=DOUBLE)


@only("inductive_ft", "transductive_ft")
def test_the_fine_tuning_loss_is_the_authors(golden_with_padding):
    """Theirs runs over the padding item too, so its row is read along here."""
    golden = golden_with_padding
    pairs = [(history + 1, target + 1) for history, target in rows(golden, "test")]
    states = states_of(golden, [history for history, _ in pairs], True)
    logits = torch.from_numpy(cosine(golden, states)) / golden.model.settings.temperature
    loss = F.cross_entropy(logits, torch.tensor([target for _, target in pairs]))
    expected = json.loads((golden.folder / "expected_finetune_loss.json").read_text())[golden.name]
    assert loss.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_metrics_are_those_of_the_authors_evaluator(golden, split):
    pairs = list(rows(golden, split))
    scores = cosine(golden, states_of(golden, [history for history, _ in pairs], True))
    ranks = pessimistic_rank(torch.from_numpy(scores), torch.tensor([target for _, target in pairs])).numpy()
    expected = json.loads((golden.folder / "expected_metrics.json").read_text())[golden.name][split]
    found = metrics(ranks, sorted({int(key.partition("@")[2]) for key in expected}))
    assert {key: found[key.replace("hit", "recall")] for key in expected} == pytest.approx(expected, abs=1e-9)


@only("pretrain")
def test_pre_training_losses_are_the_authors(golden):
    """By the functions that training calls, on a batch in which targets come twice."""
    batch = dict(np.load(golden.folder / "pretrain_batch.npz"))
    expected = json.loads((golden.folder / "expected_pretrain_loss.json").read_text())
    network = double(golden).model
    table = network.item_table(torch.from_numpy(batch["plm_embeddings"]).double()).detach()

    @torch.inference_mode()
    def last(ids, length):
        return network.encode(table[torch.from_numpy(ids)])[torch.arange(len(ids)), torch.from_numpy(length - 1)]

    states, copies = last(batch["item_seq"], batch["item_len"]), last(batch["item_seq_aug"], batch["item_len_aug"])
    items, target = np.unique(batch["pos_item"], return_inverse=True)
    assert len(items) < len(target)
    wanted, tau = torch.from_numpy(target), network.settings.temperature
    assert tau == expected["temperature"]
    item = sequence_item_loss(states, table[torch.from_numpy(items)], wanted, tau).item()
    sequence = sequence_sequence_loss(states, copies, wanted, tau).item()
    assert item == pytest.approx(expected["seq_item"], abs=1e-5)
    assert sequence == pytest.approx(expected["seq_seq"], abs=1e-5)
    assert item + expected["lambda"] * sequence == pytest.approx(expected["total"], abs=1e-5)


# --- mistakes that these numbers would show


def test_what_stands_behind_a_history_in_a_padded_batch_does_not_matter(golden):
    width = min(9, golden.model.settings.max_length)
    table = golden.model.item_table(golden.text)[:width]
    with torch.inference_mode():
        alone = golden.model.encode(table[:3].unsqueeze(0))[:, 2]
        followed = golden.model.encode(table.unsqueeze(0))[:, 2]
    torch.testing.assert_close(followed, alone, rtol=RELATIVE, atol=STATES)


def test_gates_are_noisy_in_training_only(golden):
    golden.model.train()
    torch.manual_seed(0)
    adaptor = golden.model.moe_adaptor
    first, second = adaptor.gates(golden.text), adaptor.gates(golden.text)
    assert not torch.equal(first, second)
    torch.testing.assert_close(first.sum(-1), torch.ones(len(first)))
    golden.model.eval()
    assert torch.equal(adaptor.gates(golden.text), adaptor.gates(golden.text))
