"""The key of a domain's text vectors."""

from ckd.stages.text.encoder import Encoder
from ckd.stages.text.settings import TextSettings
from ckd.storage.formats import TEXT_FORMAT
from ckd.storage.keys import Address


def text_address(corpus_key: str, settings: TextSettings, encoder: Encoder) -> Address:
    """Return where the vectors of one corpus by one encoder belong."""
    return Address(
        "text",
        {
            "corpus": corpus_key,
            "encoder": encoder.digests,
            "fields": list(settings.fields),
            "max_tokens": settings.max_tokens,
            "pooling": settings.pooling,
            "format": TEXT_FORMAT,
        },
    )
