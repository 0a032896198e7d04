"""The rows of a checkpoint of the authors find their items, or it is refused; such files serve as teachers."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch

from ckd.stages.teachers.contract import DomainData, Job, Opening, TextVectors
from ckd.stages.teachers.frozen import CONFIG
from ckd.stages.teachers.unisrec import AdaptSettings, Settings, open_teacher
from ckd.stages.teachers.unisrec.checkpoint import catalogue_digest, load_config
from ckd.stages.teachers.unisrec.recbole import read_recbole
from ckd.stages.teachers.unisrec.rows import open_pth, rows_by_text
from ckd.stages.teachers.unisrec.training import adapt_into
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError
from ckd.storage.keys import Address
from ckd.storage.store import Store

CPU = torch.device("cpu")
STAGES = ("pretrain", "inductive_ft", "transductive_ft")


def corpus_of(ids, lengths=(4, 6, 5)):
    draw = np.random.default_rng(2)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = pa.table({"item": np.arange(len(ids), dtype=np.int32), "item_id": ids})
    sequence = draw.integers(0, len(ids), offsets[-1]).astype(np.int32)
    return Corpus("key", items, pa.array([f"u{n}" for n in range(len(lengths))]), offsets, sequence)


@pytest.fixture
def read(authors):
    """A function that reads the authors' file of a stage."""
    folder = authors / "unisrec"
    by_stage = {
        stage: name for name, stage in json.loads((folder / "config.json").read_text())["train_stage_by_file"].items()
    }
    return lambda stage: read_recbole(folder / by_stage[stage])


@pytest.fixture
def world_of(read):
    """The domain of the fixtures: items with ids in another order than the rows, and their own text vectors."""

    def make(rows=None):
        text = read("transductive_ft").text
        order = np.random.default_rng(0).permutation(np.arange(1, len(text))) if rows is None else np.array(rows)
        corpus = corpus_of([f"item-{code:02d}" for code in range(len(order))])
        return corpus, TextVectors(text[order], "e" * 64), order

    return make


@pytest.fixture
def map_of(tmp_path):
    """A function that writes a map of item ids."""

    def write(content):
        path = tmp_path / "ids.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def small_file(twin):
    """Sizes and tensors of a file of three items; the last two have one text if they are ``twin``."""
    final = {"hidden_size": 2, "n_layers": 1, "n_heads": 1, "inner_size": 1, "hidden_act": "gelu", "n_exps": 1}
    final |= {"layer_norm_eps": 1e-12, "temperature": 0.07, "adaptor_layers": [3, 2], "MAX_ITEM_LIST_LENGTH": 4}
    final |= {
        "train_stage": "transductive_ft",
        "hidden_dropout_prob": 0,
        "attn_dropout_prob": 0,
        "adaptor_dropout_prob": 0,
    }
    names = {"moe_adaptor.w_gate": (3, 1), "moe_adaptor.w_noise": (3, 1), "position_embedding.weight": (4, 2)}
    names |= {"moe_adaptor.experts.0.bias": (3,), "moe_adaptor.experts.0.lin.weight": (2, 3)}
    names |= {"LayerNorm.weight": (2,), "LayerNorm.bias": (2,)}
    at = "trm_encoder.layer.0."
    for name in ("query", "key", "value", "dense", "LayerNorm"):
        names |= {f"{at}multi_head_attention.{name}.weight": (2,) if name == "LayerNorm" else (2, 2)}
        names |= {f"{at}multi_head_attention.{name}.bias": (2,)}
    names |= {f"{at}feed_forward.dense_1.weight": (1, 2), f"{at}feed_forward.dense_1.bias": (1,)}
    names |= {f"{at}feed_forward.dense_2.weight": (2, 1), f"{at}feed_forward.dense_2.bias": (2,)}
    names |= {f"{at}feed_forward.LayerNorm.weight": (2,), f"{at}feed_forward.LayerNorm.bias": (2,)}
    draw = torch.Generator().manual_seed(3)
    tensors = {name: torch.randn(shape, generator=draw) for name, shape in names.items()}
    tensors["plm_embedding.weight"] = torch.tensor([[0.0, 0, 0], [1, 2, 3], [4, 5, 6], [4, 5, 6 if twin else 7]])
    tensors["item_embedding.weight"] = torch.randn(4, 2, generator=draw)
    return final, tensors


def as_list(corpus, order, n_rows):
    row_of = {int(row): item for item, row in zip(corpus.items["item_id"].to_pylist(), order, strict=True)}
    return [None, *(row_of.get(row, f"other-{row}") for row in range(1, n_rows))]


def as_object(corpus, order):
    return {item: int(row) for item, row in zip(corpus.items["item_id"].to_pylist(), order, strict=True)}


def line_of(checkpoint, item_ids, corpus, text):
    with pytest.raises(UserError) as caught:
        open_pth(checkpoint.path, item_ids, corpus, text)
    (line,) = str(caught.value).splitlines()
    return line


# --- rows that are found


def test_rows_are_found_by_the_text_vectors(read, world_of):
    checkpoint = read("transductive_ft")
    corpus, text, order = world_of()
    np.testing.assert_array_equal(rows_by_text(checkpoint, corpus, text.vectors), order)
    model = open_pth(checkpoint.path, None, corpus, text)
    assert torch.equal(model.item_embedding.weight, checkpoint.ids[torch.from_numpy(order)])


def test_a_corpus_may_hold_some_of_the_items_only(read, world_of):
    checkpoint = read("transductive_ft")
    corpus, text, _ = world_of([7, 2, 5])
    model = open_pth(checkpoint.path, None, corpus, text)
    assert torch.equal(model.item_embedding.weight, checkpoint.ids[[7, 2, 5]])


@pytest.mark.parametrize("form", ["list", "object"])
def test_rows_are_named_by_the_user_where_the_text_was_encoded_again(read, world_of, map_of, form):
    checkpoint = read("transductive_ft")
    corpus, text, order = world_of()
    again = TextVectors(text.vectors + np.float32(0.01), text.encoder)
    assert "no row has the text vector" in line_of(checkpoint, None, corpus, again)
    content = as_list(corpus, order, len(checkpoint.text)) if form == "list" else as_object(corpus, order)
    model = open_pth(checkpoint.path, map_of(content), corpus, again)
    assert torch.equal(model.item_embedding.weight, checkpoint.ids[torch.from_numpy(order)])


def test_item_ids_that_are_numbers_are_named_as_numbers_or_text(read, world_of, map_of):
    checkpoint = read("transductive_ft")
    _, text, _ = world_of([3, 1])
    corpus = corpus_of([70, 80])
    rest = [f"other-{row}" for row in range(4, len(checkpoint.text))]
    for content in ({"70": 3, "80": 1}, [None, 80, 1, "70", *rest]):
        model = open_pth(checkpoint.path, map_of(content), corpus, text)
        assert torch.equal(model.item_embedding.weight, checkpoint.ids[[3, 1]])


@pytest.mark.parametrize("stage", ["pretrain", "inductive_ft"])
def test_a_teacher_without_an_id_table_needs_no_rows(read, world_of, stage):
    """The domain's own text vectors are all that it reads, also of items that it never saw."""
    corpus, text, _ = world_of()
    other = TextVectors(text.vectors + np.float32(0.5), text.encoder)
    model = open_pth(read(stage).path, None, corpus, other)
    assert model.item_embedding is None
    assert all(torch.equal(tensor, read(stage).weights[name]) for name, tensor in model.state_dict().items())


# --- rows that are not certain


def test_items_without_a_row_are_named(read, world_of):
    checkpoint = read("transductive_ft")
    corpus, text, _ = world_of([4, 9, 6])
    text.vectors[1:] += 1
    assert line_of(checkpoint, None, corpus, text) == (
        f"{checkpoint.path}: no row has the text vector of item 'item-01' (2 of 3 items have none), so the rows of its "
        "ID table are not known; name the item of each row with item_ids"
    )


def test_the_padding_item_is_no_row(read, world_of):
    checkpoint = read("transductive_ft")
    corpus, text, _ = world_of([4, 0])
    assert "no row has the text vector of item 'item-01'" in line_of(checkpoint, None, corpus, text)


def test_the_last_bit_of_a_text_vector_counts(read, world_of):
    checkpoint = read("transductive_ft")
    corpus, text, _ = world_of([4, 9])
    text.vectors[1, 0] = np.nextafter(text.vectors[1, 0], np.float32(9))
    assert "no row has the text vector of item 'item-01' (1 of 2" in line_of(checkpoint, None, corpus, text)


def test_two_items_of_one_text_are_told_apart_by_the_user_only(read, world_of):
    checkpoint = read("transductive_ft")
    corpus, text, _ = world_of([4, 9, 4])
    assert line_of(checkpoint, None, corpus, text) == (
        f"{checkpoint.path}: items 'item-00' and 'item-02' both have the text vector of row 4; "
        "name the item of each row with item_ids"
    )


def test_two_rows_of_one_text_are_told_apart_by_the_user_only(write_recbole, map_of, tmp_path):
    final, tensors = small_file(twin=True)
    path = write_recbole(tmp_path / "twin.pth", final, tensors)
    checkpoint = read_recbole(path)
    corpus, text = corpus_of(["a", "b"]), TextVectors(checkpoint.text[[1, 3]], "e" * 64)
    assert line_of(checkpoint, None, corpus, text) == (
        f"{path}: rows 2 and 3 both have the text vector of item 'b'; name the item of each row with item_ids"
    )
    for row in (2, 3):
        model = open_pth(path, map_of({"a": 1, "b": row}), corpus, text)
        assert torch.equal(model.item_embedding.weight, checkpoint.ids[[1, row]])


def test_a_map_that_contradicts_the_text_is_refused(read, world_of, map_of):
    checkpoint = read("transductive_ft")
    corpus, text, _ = world_of([4, 9, 6])
    path = map_of({"item-00": 4, "item-01": 6, "item-02": 9})
    assert line_of(checkpoint, path, corpus, text) == (
        f"{path}: item 'item-01' is row 6, but {checkpoint.path} has its text vector in row 9; "
        "give the map of this file"
    )


def test_an_item_that_the_map_lacks_is_named(read, world_of, map_of):
    checkpoint = read("transductive_ft")
    corpus, text, _ = world_of([4, 9])
    path = map_of({"item-00": 4, "item-1": 9})
    assert line_of(checkpoint, path, corpus, text) == (
        f"{path}: item 'item-01' of the domain is missing; each item of it needs a row"
    )


MAPS = {
    "{": "is no JSON of item ids: ",
    "[" * 100_000: "is no JSON of item ids: ",
    "3": ": a list of item ids by row, or an object from item id to row, is expected",
    '{"a": 1, "a": 2}': "is no JSON of item ids: item 'a' stands in it twice",
    '{"a": 0}': ": the row of item 'a' must be a whole number from 1 to 3",
    '{"a": 4}': ": the row of item 'a' must be a whole number from 1 to 3",
    '{"a": "1"}': ": the row of item 'a' must be a whole number from 1 to 3",
    '{"a": true}': ": the row of item 'a' must be a whole number from 1 to 3",
    '{"a": 1, "b": 1}': ": items 'a' and 'b' are both in row 1; each row is one item's",
    '["a", "b", "c"]': ": a list of 3 entries; expected 4, as many as the teacher has rows, the first one null",
    '["a", "b", "c", "d"]': ": a list of 4 entries; expected 4, as many as the teacher has rows, the first one null",
    '[null, "a", "b", "a"]': ": item 'a' stands in rows 1 and 3; each item has one row",
    '[null, "a", "1", 1]': ": item 1 stands in rows 2 and 3; each item has one row",
    '[null, "a", "b", null]': ": entry 3 is no item id; a text or a whole number is expected",
    '[null, "a", "b", 1.5]': ": entry 3 is no item id; a text or a whole number is expected",
}


@pytest.mark.parametrize("content", MAPS, ids=lambda content: content[:20])
def test_a_map_that_is_none_is_answered_with_one_line(write_recbole, map_of, tmp_path, content):
    checkpoint = read_recbole(write_recbole(tmp_path / "u.pth", *small_file(twin=False)))
    text = TextVectors(checkpoint.text[1:2], "e" * 64)
    said = line_of(checkpoint, map_of(content), corpus_of(["a"]), text)
    assert said.removeprefix(str(tmp_path / "ids.json")).lstrip().startswith(MAPS[content])


def test_a_map_that_is_not_there_is_named(read, world_of, tmp_path):
    corpus, text, _ = world_of()
    said = line_of(read("transductive_ft"), tmp_path / "none.json", corpus, text)
    assert said == f"{tmp_path / 'none.json'} cannot be opened: No such file or directory"


def test_a_map_for_a_pre_trained_file_is_refused(read, world_of, map_of):
    checkpoint = read("pretrain")
    corpus, text, order = world_of()
    assert line_of(checkpoint, map_of(as_object(corpus, order)), corpus, text) == (
        f"{checkpoint.path} has no rows of items (train_stage pretrain); remove item_ids for it"
    )


@pytest.mark.parametrize("stage", STAGES)
def test_text_vectors_of_another_width_are_refused(read, world_of, stage):
    checkpoint = read(stage)
    corpus, text, _ = world_of()
    width = text.vectors.shape[1]
    assert line_of(checkpoint, None, corpus, TextVectors(text.vectors[:, 1:], text.encoder)) == (
        f"{checkpoint.path}: this teacher reads text vectors of {width} dimensions, the domain's have {width - 1}; "
        "set text.encoder to the one it was trained with"
    )


# --- as a teacher


@pytest.mark.parametrize("stage", STAGES)
def test_a_teacher_opens_from_the_authors_file_and_gives_their_scores(read, world_of, stage):
    checkpoint = read(stage)
    corpus, text, order = world_of()
    settings = Settings(checkpoint=str(checkpoint.path))
    files = settings.files("tiny", "teachers.uni")
    teacher = open_teacher(Opening(settings, files, corpus, text, CPU))
    network = checkpoint.network
    table = (
        checkpoint.model(order if checkpoint.ids is not None else None)
        .double()
        .item_table(torch.from_numpy(text.vectors).double())
    )
    torch.testing.assert_close(teacher.item_vectors(), torch.nn.functional.normalize(table.detach(), dim=-1))
    users, positions = np.array([1, 2], np.int32), np.array([3, 4], np.int32)
    found = teacher.queries_at(users, positions) @ teacher.item_vectors().T
    for row, (user, position) in enumerate(zip(users, positions, strict=True)):
        history = torch.from_numpy(corpus.sequence_of(user)[:position].astype(np.int64))
        state = checkpoint.model(None).double().encode(table[history].unsqueeze(0))[0, -1]
        expected = torch.nn.functional.cosine_similarity(state, table) / network.temperature
        torch.testing.assert_close(found[row], expected.detach())


def test_the_files_of_a_teacher_are_the_checkpoint_and_the_map(tmp_path):
    (tmp_path / "office.pth").write_bytes(b"1")
    settings = Settings(checkpoint=str(tmp_path / "{domain}.pth"), item_ids=str(tmp_path / "{domain}.json"))
    with pytest.raises(UserError, match=r"^teachers.uni.item_ids: .*office.json does not exist"):
        settings.files("office", "teachers.uni")
    (tmp_path / "office.json").write_text("[]")
    assert settings.files("office", "teachers.uni") == {
        "checkpoint": tmp_path / "office.pth",
        "item_ids": tmp_path / "office.json",
    }
    with pytest.raises(UserError, match=r"^teachers.uni.checkpoint: .*games.pth does not exist"):
        settings.files("games", "teachers.uni")


@pytest.mark.parametrize("checkpoint", [None, "folder"])
def test_a_map_without_a_file_that_it_is_of_is_refused(checkpoint):
    given = {"checkpoint": checkpoint} if checkpoint else {"pretrain": {}}
    with pytest.raises(ValueError, match=r"item_ids names the rows of a \.pth file, so checkpoint must be one"):
        Settings(item_ids="ids.json", **given)


@pytest.mark.parametrize(("stage", "mode"), [("pretrain", "inductive"), ("transductive_ft", "transductive")])
def test_adaptation_starts_from_the_authors_file_and_records_the_text_encoder(read, world_of, tmp_path, stage, mode):
    corpus, text, _ = world_of()
    corpus = corpus_of(corpus.items["item_id"].to_pylist(), lengths=[6] * 12)
    files = Settings(checkpoint=str(read(stage).path)).files("tiny", "teachers.uni")
    store = Store(tmp_path / "store")
    with store.draft(Address("teachers", {"a": 1})) as draft:
        job = Job(draft, AdaptSettings(mode=mode, epochs=1, batch_size=4), CPU)
        folder = draft.commit(adapt_into(job, files, DomainData(corpus, text))).path
    config = load_config(folder)
    assert (config.mode, config.text_encoder) == (mode, text.encoder)
    assert config.items == (catalogue_digest(corpus) if mode == "transductive" else None)
    assert config.network == read(stage).network
    own = Settings(checkpoint=str(folder))
    opened = open_teacher(Opening(own, own.files("tiny", "teachers.uni"), corpus, text, CPU))
    assert opened.item_vectors().shape == (corpus.n_items, config.network.hidden)
    assert (folder / CONFIG).is_file()


def test_a_file_with_an_id_table_is_not_adapted_without_it(read, world_of, tmp_path):
    checkpoint = read("transductive_ft")
    corpus, text, _ = world_of()
    files = Settings(checkpoint=str(checkpoint.path)).files("tiny", "teachers.uni")
    with pytest.raises(UserError, match=r"has an item ID table; adapt it with adapt.mode: transductive"):
        adapt_into(Job(None, AdaptSettings(mode="inductive"), CPU), files, DomainData(corpus, text))


def test_a_configuration_names_the_authors_file_and_a_map(workplace, world, write_recbole):
    final, tensors = small_file(twin=False)
    final["adaptor_layers"], draw = [world.text.vectors.shape[1], 2], torch.Generator().manual_seed(1)
    for name, tensor in tensors.items():
        if name.startswith("moe_adaptor"):
            shape = [16 if size == 3 else size for size in tensor.shape]
            tensors[name] = torch.randn(shape, generator=draw)
    ids = world.corpus.items["item_id"].to_pylist()
    tensors["plm_embedding.weight"] = torch.randn(len(ids) + 1, 16, generator=draw)
    tensors["item_embedding.weight"] = torch.randn(len(ids) + 1, 2, generator=draw)
    write_recbole(workplace.folder / "tiny.pth", final, tensors)
    (workplace.folder / "ids.json").write_text(json.dumps([None, *ids[::-1]]))
    named = ["--set", "teachers.uni.checkpoint='{domain}.pth'"]
    without = workplace.ckd("precompute", *named)
    assert without.returncode == 2
    assert "no row has the text vector of item 'item-00' (40 of 40 items have none)" in " ".join(without.stderr.split())
    done = workplace.ckd("precompute", *named, "--set", "teachers.uni.item_ids=ids.json")
    assert done.returncode == 0, done.stderr
    (labels,) = (workplace.store / "labels" / "teacher=uni" / "domain=tiny").glob("key=*")
    assert any(labels.rglob("*.parquet"))
