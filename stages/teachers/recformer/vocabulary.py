"""A byte-level BPE vocabulary of one's own, in RoBERTa's layout: four special tokens first, ``<mask>`` last."""

from collections.abc import Iterable, Mapping

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from ckd.stages.teachers.recformer.tokens import MASK, SPECIALS


def byte_level(model: models.BPE | None = None) -> Tokenizer:
    """Return a tokenizer that splits text as RoBERTa's does: no added space, no normalisation."""
    tokenizer = Tokenizer(model or models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def learn_vocabulary(items: Iterable[Mapping[str, str]], size: int) -> Tokenizer:
    """Learn a vocabulary of at most ``size`` tokens from the names and values of items' attributes."""
    tokenizer = byte_level()
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1,
        min_frequency=2,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for item in items for pair in item.items() for text in pair), trainer)
    add_specials(tokenizer)
    return tokenizer


def add_specials(tokenizer: Tokenizer) -> None:
    """Let special strings inside a text become their ids; ``<mask>`` swallows the spaces before it."""
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in SPECIALS])
    tokenizer.add_special_tokens([AddedToken(MASK, lstrip=True, normalized=False, special=True)])
