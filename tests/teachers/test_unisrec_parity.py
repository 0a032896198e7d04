"""UniSRec's network computes what its authors' code computed; see tests/fixtures/unisrec/README.md."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ckd.stages.evaluate.metrics import metrics
from ckd.stages.evaluate.ranking import pessimistic_rank
from ckd.stages.teachers.unisrec.pretrain import sequence_item_loss, sequence_sequence_loss

# What the fixtures' README suggests: two orders of float32 summation may differ by this much.
SCORES, STATES, ITEMS = 2e-6, 1e-5, 1e-6


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


def rows(golden, split):
    """(history, target) of a split in codes, from the authors' raw indices."""
    raws = json.loads((golden.folder / "item_id_map.json").read_text())["internal_to_raw"]
    internal = {raw: number for number, raw in enumerate(raws)}
    lines = (golden.folder / f"tiny.{split}.inter").read_text().splitlines()[1:]
    for line in lines:
        _, history, target = line.split("\t")
        yield torch.tensor([internal[int(raw)] - 1 for raw in history.split()]), internal[int(target)] - 1


def test_item_vectors_are_the_authors(golden):
    with torch.inference_mode():
        found = golden.model.moe_adaptor(golden.text).numpy()
    np.testing.assert_allclose(found, golden.array("expected_item_emb")[1:], rtol=0, atol=ITEMS)


def test_the_item_table_adds_the_id_row_where_there_is_one(golden):
    with torch.inference_mode():
        table, adapted = golden.model.item_table(golden.text), golden.model.moe_adaptor(golden.text)
        some = torch.tensor([5, 0, 5])
        torch.testing.assert_close(golden.model.item_table(golden.text[some], some), table[some], rtol=0, atol=ITEMS)
    ids = golden.model.item_embedding
    expected = adapted if ids is None else adapted + ids.weight.detach()
    assert torch.equal(table, expected)


def test_gates_are_the_authors(read_golden):
    golden = read_golden("inductive")
    with torch.inference_mode():
        found = golden.model.moe_adaptor.gates(golden.text).numpy()
    np.testing.assert_allclose(found, np.load(golden.folder / "expected_gates.npy")[1:], rtol=0, atol=ITEMS)


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "padded batch"])
def test_sequence_vectors_are_the_authors(golden, together):
    found = states_of(golden, histories(golden), together).numpy()
    np.testing.assert_allclose(found, golden.array("expected_seq_output"), rtol=0, atol=STATES)


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "padded batch"])
def test_scores_are_the_authors(golden, together):
    found = cosine(golden, states_of(golden, histories(golden), together))
    np.testing.assert_allclose(found, golden.scores()[:, 1:], rtol=0, atol=SCORES)


def test_scores_in_double_precision_are_the_authors(golden):
    golden.model.double()
    golden = type(golden)(golden.model, golden.text.double(), golden.suffix)
    found = cosine(golden, states_of(golden, histories(golden), True))
    np.testing.assert_allclose(found, golden.scores(double=True)[:, 1:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["inductive", "transductive"])
def test_the_fine_tuning_loss_is_the_authors(read_golden, name):
    """Theirs runs over the padding item too, so its row is read along here."""
    golden = read_golden(name, padding_row=True)
    pairs = [(history[-50:] + 1, target + 1) for history, target in rows(golden, "test")]
    states = states_of(golden, [history for history, _ in pairs], True)
    logits = torch.from_numpy(cosine(golden, states)) / golden.model.settings.temperature
    loss = F.cross_entropy(logits, torch.tensor([target for _, target in pairs]))
    expected = json.loads((golden.folder / "expected_finetune_loss.json").read_text())[name]
    assert loss.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("name", ["inductive", "transductive", "pretrained"])
def test_metrics_are_those_of_the_authors_evaluator(read_golden, name, split):
    golden = read_golden(name)
    pairs = list(rows(golden, split))
    scores = cosine(golden, states_of(golden, [history[-50:] for history, _ in pairs], True))
    ranks = pessimistic_rank(torch.from_numpy(scores), torch.tensor([target for _, target in pairs])).numpy()
    found = metrics(ranks, [5, 10])
    theirs = json.loads((golden.folder / "expected_metrics.json").read_text())
    expected = theirs["pretrained_inductive" if name == "pretrained" else name][split]
    assert {key: found[key.replace("hit", "recall")] for key in expected} == pytest.approx(expected, abs=1e-9)


def test_pre_training_losses_are_the_authors_where_no_two_rows_share_a_target(read_golden):
    """Rows of one target add a constant to the authors' denominator and nothing to ours, so such rows are left out
    here and the authors' formula is worked out by hand; with all rows it gives what their code gave."""
    golden = read_golden("pretrained")
    batch = dict(np.load(golden.folder / "pretrain_batch.npz"))
    expected = json.loads((golden.folder / "expected_pretrain_loss.json").read_text())
    tau = golden.model.settings.temperature
    table = golden.model.double().item_table(torch.from_numpy(batch["plm_embeddings"]).double()).detach()

    def last(ids, length):
        return golden.model.encode(table[torch.from_numpy(ids)])[torch.arange(len(ids)), torch.from_numpy(length - 1)]

    with torch.inference_mode():
        states = last(batch["item_seq"], batch["item_len"])
        copies = last(batch["item_seq_aug"], batch["item_len_aug"])
    targets = batch["pos_item"]

    def theirs(candidates, chosen):
        unit = F.normalize(states[chosen], dim=-1), F.normalize(candidates[chosen], dim=-1)
        logits = unit[0] @ unit[1].T / tau
        same = torch.from_numpy(targets[chosen][:, None] == targets[chosen][None]) & ~torch.eye(len(chosen)).bool()
        logits = torch.where(same, torch.zeros(()).double(), logits)
        return (logits.exp().sum(1).log() - logits.diagonal()).mean().item()

    everything = np.arange(len(targets))
    assert theirs(table[torch.from_numpy(targets)], everything) == pytest.approx(expected["seq_item"], abs=1e-5)
    assert theirs(copies, everything) == pytest.approx(expected["seq_seq"], abs=1e-5)

    distinct = np.unique(targets, return_index=True)[1]
    wanted = torch.arange(len(distinct))
    items = table[torch.from_numpy(targets[distinct])]
    ours = sequence_item_loss(states[distinct], items, wanted, tau).item()
    assert ours == pytest.approx(theirs(table[torch.from_numpy(targets)], distinct), abs=1e-10)
    ours = sequence_sequence_loss(states[distinct], copies[distinct], targets[distinct], tau).item()
    assert ours == pytest.approx(theirs(copies, distinct), abs=1e-10)


# --- mistakes that these numbers would show


def test_what_stands_behind_a_history_in_a_padded_batch_does_not_matter(golden):
    table = golden.model.item_table(golden.text)
    with torch.inference_mode():
        alone = golden.model.encode(table[:3].unsqueeze(0))[:, 2]
        followed = golden.model.encode(table[:9].unsqueeze(0))[:, 2]
    torch.testing.assert_close(followed, alone, rtol=0, atol=2e-6)


def test_gates_are_noisy_in_training_only(golden):
    golden.model.train()
    torch.manual_seed(0)
    adaptor = golden.model.moe_adaptor
    first, second = adaptor.gates(golden.text), adaptor.gates(golden.text)
    assert not torch.equal(first, second)
    torch.testing.assert_close(first.sum(-1), torch.ones(len(first)))
    golden.model.eval()
    assert torch.equal(adaptor.gates(golden.text), adaptor.gates(golden.text))
