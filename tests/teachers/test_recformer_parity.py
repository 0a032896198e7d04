"""Recformer computes from its authors' files what their code computed; see tests/fixtures/recformer/README.md.

Every size, window, limit and activation is read from the files: `CKD_FIXTURES=folder pytest -m parity` checks any other
folder of the same layout.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional as F

from ckd.stages.teachers.contract import Opening
from ckd.stages.teachers.recformer import Settings, open_teacher
from ckd.stages.teachers.recformer.adapt import item_loss
from ckd.stages.teachers.recformer.checkpoint import load_weights, open_tokenizer, read_tensors
from ckd.stages.teachers.recformer.config import load_config
from ckd.stages.teachers.recformer.encode import encode_items
from ckd.stages.teachers.recformer.files import MERGES, TOKENIZER, VOCABULARY
from ckd.stages.teachers.recformer.network import cosine_scores
from ckd.stages.teachers.recformer.pretrain import Pretraining, item_contrast
from ckd.stages.teachers.recformer.tokens import Inputs, assemble, single_items, token_counts, tokenise
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError

pytestmark = pytest.mark.parity

CPU = torch.device("cpu")
# What the fixtures' README suggests: two orders of float32 summation may differ by this much.
VECTORS, SCORES, LOSSES = 1e-5, 5e-5, 2e-5
RELATIVE = 1e-5
DOUBLE = 1e-10
WEIGHTS = {"pre-trained": "recformer-*-seqrec.bin", "fine-tuned": "recformer-*-finetuned.bin"}
SUFFIXES = {"pre-trained": "", "fine-tuned": "_finetuned"}


@dataclass
class Golden:
    """One checkpoint of the authors, opened, with what they computed from it."""

    folder: Path
    stage: str

    def __post_init__(self):
        (self.path,) = self.folder.glob(WEIGHTS[self.stage])
        self.config = load_config(self.folder / "config.json")
        self.model, self.table = load_weights(self.path, self.config)

    def array(self, name, suffix=""):
        return np.load(self.folder / f"{name}{SUFFIXES[self.stage]}{suffix}.npy")

    def read(self, name):
        return json.loads((self.folder / name).read_text())

    @cached_property
    def tokens(self):
        tokenizer = open_tokenizer({TOKENIZER: self.folder / "tokenizer" / TOKENIZER}, self.config)
        return tokenise(attributes(self.read("item_texts.json")), tokenizer, self.config.limits)

    def inputs(self, histories):
        """The histories as one batch, through the functions that the teacher calls."""
        sequence = np.array([item for history in histories for item in history], np.int32)
        items = np.array([len(history) for history in histories])
        return assemble(self.tokens, sequence, items.cumsum(), items, self.config.limits)

    @torch.inference_mode()
    def encoded(self, histories):
        return self.model(self.inputs(histories))

    def items(self):
        """Item vectors with which the authors score: encoded, or the stored table."""
        if self.table is not None:
            return self.table.to(self.model.embeddings.LayerNorm.weight.dtype)
        return encode_items(self.model, self.tokens, self.config.limits, CPU)

    def scores(self, histories):
        return cosine_scores(self.encoded(histories), self.items(), self.config.temp)

    def double(self):
        self.model.double()
        return self


def attributes(texts):
    return [{name: text for name, text in item.items() if name not in ("id", "asin")} for item in texts]


@pytest.fixture(scope="module")
def folder(authors):
    return authors / "recformer"


@pytest.fixture(params=WEIGHTS)
def golden(request, folder):
    return Golden(folder, request.param)


@pytest.fixture
def pretrained(folder):
    return Golden(folder, "pre-trained")


@pytest.fixture
def histories(folder):
    return json.loads((folder / "sequences.json").read_text())


def close(found, expected, atol):
    np.testing.assert_allclose(found.numpy(), expected, rtol=RELATIVE, atol=atol)


def same_inputs(found, expected):
    """Compare a batch with the authors', which may be wider."""
    width = found.ids.shape[1]
    expected = {name: np.array(values) for name, values in expected.items()}
    attended = expected["attention_mask"]
    assert attended[:, width:].sum() == 0
    np.testing.assert_array_equal(found.real.numpy(), attended[:, :width])
    parts = {"input_ids": found.ids, "item_position_ids": found.item_position, "token_type_ids": found.types}
    for name, tensor in parts.items():
        np.testing.assert_array_equal(tensor.numpy(), expected[name][:, :width], err_msg=name)
        # What is padded beyond the longest sequence looks as our padding does.
        assert (expected[name][:, width:] == padding_of(expected, name)).all()
    first = np.zeros_like(attended)
    first[:, 0] = 1
    np.testing.assert_array_equal(expected["global_attention_mask"], first)


def padding_of(expected, name):
    padded = expected[name][expected["attention_mask"] == 0]
    return padded[0] if len(padded) else 0


# --- tokens


@pytest.mark.parametrize("files", [(TOKENIZER,), (VOCABULARY, MERGES)], ids=["tokenizer.json", "vocab.json and merges"])
def test_token_ids_are_the_authors(pretrained, folder, files):
    tokenizer = open_tokenizer({name: folder / "tokenizer" / name for name in files}, pretrained.config)
    for case in pretrained.read("tokenizer_cases.json"):
        assert tokenizer.encode(case["text"], add_special_tokens=False).ids == case["ids"], case["text"]
    tokens = tokenise(attributes(pretrained.read("item_texts.json")), tokenizer, pretrained.config.limits)
    for name in ("ids", "types", "offsets"):
        np.testing.assert_array_equal(getattr(tokens, name), getattr(pretrained.tokens, name))


def test_tokens_of_items_are_the_authors(pretrained):
    expected = pretrained.read("items.json")
    tokens, items = pretrained.tokens, [expected[str(item["id"])] for item in pretrained.read("item_texts.json")]
    assert tokens.lengths.tolist() == [len(item["input_ids"]) for item in items]
    assert tokens.ids.tolist() == [token for item in items for token in item["input_ids"]]
    assert tokens.types.tolist() == [kind for item in items for kind in item["token_type_ids"]]


def test_inputs_of_a_batch_are_the_authors(pretrained, histories):
    found, expected = pretrained.inputs(histories), pretrained.read("expected_inputs.json")
    same_inputs(found, expected["sequences_batch"])
    padded = expected["pad_to_max_first3"]
    assert len(padded["input_ids"][0]) == pretrained.config.max_token_num
    same_inputs(pretrained.inputs(histories[:3]), padded)


def test_inputs_of_each_sequence_and_of_each_item_are_the_authors(pretrained, histories):
    expected = pretrained.read("expected_inputs.json")
    sequences = [pretrained.inputs([history]) for history in histories]
    codes = range(len(items_of(pretrained)))
    items = [single_items(pretrained.tokens, np.array([code]), pretrained.config.limits) for code in codes]
    assert len(items) == len(expected["items_single"])
    for found, single in zip(sequences + items, expected["sequences_single"] + expected["items_single"], strict=True):
        same_inputs(found, {name: [values] for name, values in single.items()})
        assert found.ids.shape[1] == len(single["input_ids"])


def items_of(golden):
    return golden.read("item_texts.json")


def test_lengths_are_known_before_a_batch_is_put_together(pretrained, histories):
    sequence = np.array([item for history in histories for item in history], np.int32)
    items = np.array([len(history) for history in histories])
    found = token_counts(pretrained.tokens, sequence, items.cumsum(), items, pretrained.config.limits)
    np.testing.assert_array_equal(found, pretrained.inputs(histories).real.sum(1).numpy())


# --- vectors and scores


def test_hidden_states_of_every_layer_are_the_authors_at_every_real_token(pretrained, histories):
    """The local projections of the last layer show in nothing else."""
    expected = np.load(pretrained.folder / "expected_hidden_states.npz")
    inputs = pretrained.inputs(histories)
    with torch.inference_mode():
        states = pretrained.model.hidden_states(inputs)
    assert (
        len(states) == sum(name.startswith("h") for name in expected.files) == 1 + pretrained.config.num_hidden_layers
    )
    for number, state in enumerate(states):
        theirs = expected[f"h{number}"]
        real = inputs.real[: len(theirs)]
        width = real.shape[1]
        close(state[: len(theirs)][real], theirs[:, :width][real.numpy()], VECTORS)


def test_sequence_vectors_are_the_authors_in_a_batch_and_alone(golden, histories):
    expected = golden.array("expected_pooler")
    close(golden.encoded(histories), expected, VECTORS)
    close(torch.cat([golden.encoded([history]) for history in histories]), expected, VECTORS)


def test_the_first_row_of_the_last_hidden_state_is_the_sequence_vector(golden, histories):
    with torch.inference_mode():
        states = golden.model.hidden_states(golden.inputs(histories))
    close(states[-1][:, 0], golden.array("expected_pooler"), VECTORS)


def test_item_vectors_are_the_authors(golden):
    if golden.table is not None:
        np.testing.assert_array_equal(golden.table.numpy(), golden.array("expected_item_emb"))
    encoded = encode_items(golden.model, golden.tokens, golden.config.limits, CPU)
    name = "expected_item_emb" if golden.table is None else "expected_item_emb_reencoded"
    close(encoded, golden.array(name), VECTORS)


def test_scores_are_the_authors(golden, histories):
    close(golden.scores(histories), golden.array("expected_scores"), SCORES)


def test_scores_of_candidates_are_the_authors(pretrained, histories):
    expected = np.load(pretrained.folder / "expected_candidate_scores.npz")
    found = pretrained.scores(histories).gather(1, torch.from_numpy(expected["candidates"]).long())
    close(found, expected["scores"], SCORES)


def test_vectors_and_scores_in_double_precision_are_the_authors(golden, histories):
    golden.double()
    pooled = golden.encoded(histories).numpy()
    np.testing.assert_allclose(pooled, golden.array("expected_pooler", "_float64"), rtol=DOUBLE, atol=DOUBLE)
    scores = golden.scores(histories).numpy()
    np.testing.assert_allclose(scores, golden.array("expected_scores", "_float64"), rtol=DOUBLE, atol=DOUBLE)


# --- losses and metrics


def test_the_fine_tuning_loss_is_the_authors(pretrained, histories):
    expected = pretrained.read("expected_losses.json")
    assert expected["temp"] == pretrained.config.temp
    labels = torch.tensor(expected["finetune_labels"])
    loss = item_loss(pretrained.encoded(histories), pretrained.items(), labels, pretrained.config.temp)
    assert loss.item() == pytest.approx(expected["finetune_full_softmax"], abs=LOSSES)


def test_the_pre_training_loss_and_its_parts_are_the_authors(pretrained):
    """By the functions that training calls, with the authors' masked tokens."""
    batch, expected = pretrained.read("pretrain_batch.json"), pretrained.read("expected_losses.json")

    def inputs(side, ids="input_ids"):
        names = (f"{ids}_{side}", f"item_position_ids_{side}", f"token_type_ids_{side}", f"attention_mask_{side}")
        *numbers, real = (torch.tensor(batch[name]) for name in names)
        return Inputs(*numbers, real.bool())

    head = {name.removeprefix("lm_head."): t for name, t in read_tensors(pretrained.path).items() if "lm_head." in name}
    assert torch.equal(head.pop("bias"), head["decoder.bias"])
    network = Pretraining(pretrained.model, expected["mlm_weight"], np.empty(0, bool), 0)
    network.lm_head.load_state_dict(head)
    network.eval()
    masked = [(inputs(side, "mlm_input_ids"), torch.tensor(batch[f"mlm_labels_{side}"])) for side in "ab"]
    with torch.inference_mode():
        a, b = (pretrained.model(inputs(side)) for side in "ab")
        logits = cosine_scores(a, b, pretrained.config.temp)
        contrast = item_contrast(a, b, pretrained.config.temp)
        words = [network.masked_language(*each, CPU).item() for each in masked]
        total = network.combined(inputs("a"), inputs("b"), masked, CPU)
    close(logits, expected["pretrain_cos_over_temp"], SCORES)
    assert contrast.item() == pytest.approx(expected["pretrain_contrastive"], abs=LOSSES)
    assert words == pytest.approx([expected["pretrain_mlm_a"], expected["pretrain_mlm_b"]], abs=LOSSES)
    assert total.item() == pytest.approx(expected["pretrain_total"], abs=LOSSES)
    assert (logits.argmax(1) == torch.arange(len(logits))).sum() == expected["correct"]


def evaluation(golden, split):
    """(history, target) of a split as the authors' evaluation reads them."""
    parts = {name: golden.read(f"data/{name}.json") for name in ("train", "val", "test")}
    known = ["train"] if split == "val" else ["train", "val"]
    for user, targets in parts[split].items():
        if targets:
            yield [item for name in known for item in parts[name].get(user, [])], targets[0]


@pytest.mark.parametrize("split", ["val", "test"])
def test_metrics_are_those_of_the_authors_evaluation(golden, split):
    """Their means are means of batches' means, and a tie favours the target."""
    expected = golden.read("expected_metrics.json")
    histories, targets = zip(*evaluation(golden, split), strict=True)
    assert len(targets) == expected["users"][split]
    scores = golden.scores(histories)
    target = torch.tensor(targets).unsqueeze(1)
    rank = (scores > scores.gather(1, target)).sum(1).double()

    def measure(name):
        kind, _, cutoff = name.partition("@")
        inside = (rank < int(cutoff or 0)).double()
        found = {
            "NDCG": inside / torch.log2(rank + 2),
            "Recall": inside,
            "MRR": 1 / (rank + 1),
            "AUC": 1 - rank / scores.shape[1],
        }[kind]
        return float(torch.stack([batch.mean() for batch in found.split(expected["batch_size"])]).mean())

    theirs = expected[golden.stage.replace("-", "")][split]
    assert {name: measure(name) for name in theirs} == pytest.approx(theirs, abs=1e-6)


# --- files


def test_all_layouts_of_the_same_weights_open_to_the_same_tensors(pretrained, folder):
    (bare,) = set(folder.glob("recformer-*.bin")) - {
        path for pattern in WEIGHTS.values() for path in folder.glob(pattern)
    }
    for path in (bare, folder / "pretrain-lightning.ckpt"):
        model, table = load_weights(path, pretrained.config)
        assert table is None
        for name, tensor in pretrained.model.state_dict().items():
            assert torch.equal(model.state_dict()[name], tensor), f"{path}: {name}"


def test_a_file_without_the_frozen_word_embeddings_is_answered_in_one_line(pretrained, folder):
    path = folder / "pytorch_model.bin"
    with pytest.raises(UserError) as caught:
        load_weights(path, pretrained.config)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: tensor embeddings.word_embeddings.weight is missing")
    assert "convert_pretrain_ckpt.py" in message


def corpus_of(histories, texts):
    """The authors' items and histories as a domain: each history is a user's, with two unseen items behind it."""
    histories = [history for history in histories if history]
    items = {
        "item": np.arange(len(texts), dtype=np.int32),
        "item_id": [text["asin"] for text in texts],
        "title": [text["title"] for text in texts],
        "brand": [text["brand"] or None for text in texts],
        "categories": [text["category"] for text in texts],
        "description": pa.nulls(len(texts), pa.string()),
    }
    sequences = [[*history, 0, 1] for history in histories]
    offsets = np.cumsum([0, *(len(sequence) for sequence in sequences)])
    users = pa.array([f"u{number:02d}" for number in range(len(sequences))])
    return Corpus("key", pa.table(items), users, offsets, np.concatenate(sequences).astype(np.int32))


@pytest.mark.parametrize("layout", ["in order", "other codes"])
def test_a_teacher_of_a_domain_gives_the_authors_scores(golden, histories, layout, tmp_path):
    """Also where the domain has its items in another order than the checkpoint."""
    texts = items_of(golden)
    code = np.arange(len(texts)) if layout == "in order" else np.random.default_rng(0).permutation(len(texts))
    corpus = corpus_of(
        [[int(code[item]) for item in history] for history in histories], [texts[i] for i in code.argsort()]
    )
    (tmp_path / "smap.json").write_text(json.dumps({text["asin"]: text["id"] for text in texts}))
    settings = Settings(
        checkpoint=str(golden.path),
        tokenizer=str(golden.folder / "tokenizer"),
        item_ids=str(tmp_path / "smap.json") if golden.table is not None else None,
        precision="float32",
    )
    teacher = open_teacher(Opening(settings, settings.files("tiny", "teachers.rec"), corpus, None, CPU))
    shown = [number for number, history in enumerate(histories) if history]
    lengths = np.array([len(histories[number]) for number in shown], np.int32)
    queries = teacher.queries_at(np.arange(len(shown), dtype=np.int32), lengths)
    found = (queries @ teacher.item_vectors().T)[:, torch.from_numpy(code)]
    close(found, golden.array("expected_scores")[shown], SCORES)


# --- mistakes that these numbers would show


def test_wider_padding_does_not_matter(golden, histories):
    inputs = golden.inputs(histories)
    wider = Inputs(*(F.pad(tensor, (0, 13)) for tensor in vars(inputs).values()))
    with torch.inference_mode():
        close(golden.model(wider), golden.array("expected_pooler"), VECTORS)
