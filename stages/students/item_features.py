"""What is known of items beside who bought them, as features in fields: categories, brand, words of the title."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ckd.storage.corpus import Corpus

_WORD = re.compile(r"\w+")
_BETWEEN_CATEGORIES = ","


@dataclass(frozen=True)
class Bags:
    """The features of every item in one field.

    Attributes:
        offsets: int64 [n_items + 1]; item v has ``features[offsets[v]:offsets[v + 1]]``, none where nothing is known.
        features: int64 [total], below ``size``, ascending and distinct within an item.
        size: features of the field.
    """

    offsets: npt.NDArray[np.int64]
    features: npt.NDArray[np.int64]
    size: int


def item_features(corpora: Sequence[Corpus], min_items: int, max_features: int) -> dict[str, Bags]:
    """Return the fields of which anything is known, over the items of several corpora, one corpus after the other.

    One vocabulary serves all corpora. It depends on the corpora alone: the most frequent features first, those that
    are equally frequent in order of their text.

    Args:
        corpora: whose items.
        min_items: features of fewer items are left out.
        max_features: of each field, the most frequent.
    """
    fields = {"categories": _categories, "brand": _brand, "title": _words}
    bags = {}
    for field, features_of in fields.items():
        texts = [text for corpus in corpora for text in corpus.items[field].to_pylist()]
        found = _bags([features_of(text) if text else set() for text in texts], min_items, max_features)
        if found.size:
            bags[field] = found
    return bags


def _bags(items: Sequence[set[str]], min_items: int, max_features: int) -> Bags:
    counts = Counter(feature for features in items for feature in features)
    frequent = sorted((-count, feature) for feature, count in counts.items() if count >= min_items)
    code = {feature: number for number, (_, feature) in enumerate(frequent[:max_features])}
    coded = [sorted(code[feature] for feature in features if feature in code) for features in items]
    offsets = np.cumsum([0, *map(len, coded)], dtype=np.int64)
    return Bags(offsets, np.array([feature for features in coded for feature in features], np.int64), len(code))


def _categories(text: str) -> set[str]:
    return _without_empty(part.strip() for part in text.casefold().split(_BETWEEN_CATEGORIES))


def _brand(text: str) -> set[str]:
    return _without_empty([text.strip().casefold()])


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))


def _without_empty(features: Iterable[str]) -> set[str]:
    return {feature for feature in features if feature}
