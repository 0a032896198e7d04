"""What the process that starts a sweep tells those that train. Apart from what they do, which imports torch."""

from collections.abc import Mapping
from pathlib import Path

from ckd.storage.trust import Signature


def known(signatures: Mapping[Path, Signature]) -> Mapping[Path, Signature]:
    """Return the signatures of the files that were compared with their digests."""
    return signatures
