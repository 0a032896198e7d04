"""From the attributes of an item to the one text that an encoder reads."""

import html

import numpy as np

from ckd.stages.text.settings import TextSettings
from ckd.storage.corpus import Corpus

_LONGEST = 2_000
"""UniSRec's authors leave out a field of this many characters or more."""
_DELETED = str.maketrans("", "", '"\n\r')


def item_texts(corpus: Corpus, settings: TextSettings) -> list[str]:
    """Return one text per item, in order of code, from the fields that it has."""
    columns = [corpus.items[field].to_pylist() for field in settings.fields]
    join = {"plain": _plain, "unisrec": _as_unisrec}[settings.style]
    texts = [join([value for value in values if value]) for values in zip(*columns, strict=True)]
    return _without_words(texts, settings.drop_words) if settings.drop_words else texts


def _plain(values: list[str]) -> str:
    return ". ".join(value.strip() for value in values)


def _as_unisrec(values: list[str]) -> str:
    return "".join(f"{cleaned(value)} " for value in values)


def cleaned(value: str) -> str:
    """Return a field as UniSRec's authors clean it: entities read, quotes and line breaks gone, a full stop at the end.

    A field of 2,000 characters or more becomes empty (process_amazon.py of their repository, ``clean_text``).
    """
    text = html.unescape(value).translate(_DELETED)
    # The first character is never taken for a trailing full stop, as in their loop.
    result = text[:1] + text[1:].rstrip(".") + "."
    return result if len(result) < _LONGEST else ""


def _without_words(texts: list[str], share: float) -> list[str]:
    """Leave out each word with probability ``share``; item by item the same ones in every run."""
    draw = np.random.default_rng(0)
    split = [text.split(" ") for text in texts]
    return [" ".join(word for word in words if draw.random() >= share) for words in split]
