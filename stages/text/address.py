"""The key of a domain's text vectors."""

from pathlib import Path

from ckd.stages.text.encoder import Encoder
from ckd.stages.text.settings import TextSettings
from ckd.stages.vector_files import vector_files
from ckd.storage.files import sha256_file
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
            "style": settings.style,
            "drop_words": settings.drop_words,
            "max_tokens": settings.max_tokens,
            "pooling": settings.pooling,
            "format": TEXT_FORMAT,
        },
    )


def brought_address(corpus_key: str, path: Path) -> Address:
    """Return where the vectors of one corpus that a user made elsewhere belong.

    Raises:
        UserError: the file is not there, or nothing here reads it.
    """
    files = [sha256_file(file) for file in vector_files(path)]
    return Address("text", {"corpus": corpus_key, "brought": files, "reader": path.suffix, "format": TEXT_FORMAT})
