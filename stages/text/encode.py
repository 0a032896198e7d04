"""Item text -> vectors by a frozen Hugging Face encoder, cached as an artifact."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModel, AutoTokenizer

from ckd.stages.batching import at
from ckd.stages.settings import TextPooling
from ckd.stages.text.address import text_address
from ckd.stages.text.compose import item_texts
from ckd.stages.text.encoder import WEIGHTS, Encoder
from ckd.stages.text.settings import TextSettings
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError
from ckd.storage.store import Store
from ckd.storage.vectors import write_vectors

TOKENS_PER_BATCH = 8_192
"""Not a setting: which texts share a batch must not depend on the machine, or the vectors' last bits would."""


def encode_corpus(
    store: Store,
    corpus: Corpus,
    settings: TextSettings,
    encoder: Encoder,
    device: torch.device,
    advance: Callable[[int], None] = lambda _: None,
) -> Artifact:
    """Return the text vectors of a corpus, from the store or computed now.

    Args:
        store: where the artifact is or goes.
        corpus: the domain whose items are encoded.
        settings: which attributes, how long.
        encoder: the frozen encoder's files.
        device: where it runs.
        advance: called with the number of items encoded since the last call.

    Raises:
        UserError: no item has any text, or the encoder cannot be opened.
    """
    address = text_address(corpus.key, settings, encoder)
    with store.draft(address) as draft:
        if (present := store.find(address)) is not None:
            return present
        texts = item_texts(corpus, settings)
        if not any(texts):
            raise UserError(
                f"no item of corpus {corpus.key[:16]} has any text in {', '.join(settings.fields)} "
                f"({encoder.section}.fields); name the files' own columns under domains.<name>.columns"
            )
        vectors = encode_texts(texts, encoder, settings.max_tokens, device, advance, settings.pooling)
        write_vectors(draft, vectors)
        return draft.commit({"items": len(texts), "empty": texts.count(""), "dimensions": vectors.shape[1]})


def encode_texts(
    texts: list[str],
    encoder: Encoder,
    max_tokens: int,
    device: torch.device,
    advance: Callable[[int], None] = lambda _: None,
    pooling: TextPooling = "mean",
) -> npt.NDArray[np.float32]:
    """Return a vector of each text from its last hidden states, float32 [len(texts), d].

    ``mean`` is their mean over the text's tokens, ``cls`` the first token's, ``last`` the last one's. A text of which
    the tokenizer makes no token is zero throughout.

    Raises:
        UserError: the encoder cannot be opened, or cannot read so many tokens.
    """
    tokenizer, model = _open(encoder)
    positions = _positions(model)
    if 0 < positions < max_tokens:
        raise UserError(
            f"{encoder.section}.max_tokens: {max_tokens} is more than the {positions} tokens that {encoder.folder} "
            f"reads; set it to {positions} or less"
        )
    model = model.to(device)
    tokens = tokenizer(texts, truncation=True, max_length=max_tokens)["input_ids"] if texts else []
    readable = [row for row, ids in enumerate(tokens) if ids]
    vectors = np.zeros((len(texts), model.config.hidden_size), np.float32)
    advance(len(texts) - len(readable))
    with torch.inference_mode():
        for chosen in batches_by_length([len(tokens[row]) for row in readable]):
            rows = [readable[number] for number in chosen]
            batch = tokenizer.pad({"input_ids": [tokens[row] for row in rows]}, return_tensors="pt").to(device)
            hidden = model(**batch).last_hidden_state
            vectors[rows] = _POOLINGS[pooling](hidden, batch["attention_mask"]).cpu().numpy()
            advance(len(rows))
    return vectors


def _positions(model: Any) -> int:
    """Return how many tokens an encoder has places for; 0 where it is not said."""
    places = int(getattr(model.config, "max_position_embeddings", None) or 0)
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    # RoBERTa and its like count from behind the row that stands for padding.
    padding = getattr(table, "padding_idx", None)
    return places if padding is None else places - padding - 1


def _open(encoder: Encoder) -> tuple[Any, Any]:
    """Return the tokenizer and the network, which is float32 and in evaluation mode."""
    folder = encoder.folder
    transformers.logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model, loading = AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{encoder.section}.encoder: {folder} cannot be opened: {reason}") from error
    # transformers fills what is missing with random numbers. The pooler is not used.
    missing = sorted(name for name in loading["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise UserError(f"{encoder.section}.encoder: {folder / WEIGHTS} lacks {missing[0]}; it is not a whole encoder")
    return tokenizer, model.eval()


def batches_by_length(lengths: list[int]) -> Iterator[list[int]]:
    """Yield row numbers, longest texts first, so that each padded batch holds at most ``TOKENS_PER_BATCH``.

    No length may be zero.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    start = 0
    while start < len(order):
        size = max(1, TOKENS_PER_BATCH // lengths[order[start]])
        yield order[start : start + size]
        start += size


def _masked_mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def _first_token(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return at(hidden, mask.argmax(1))


def _last_token(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return at(hidden, mask.shape[1] - 1 - mask.flip(1).argmax(1))


_POOLINGS = {"mean": _masked_mean, "cls": _first_token, "last": _last_token}
