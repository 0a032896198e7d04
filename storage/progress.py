"""How far an interrupted artifact got, shard by shard or epoch by epoch, without opening what it wrote."""

from ckd.storage.draft import Draft
from ckd.storage.files import write_text_durably

_TOTAL = ".shards"

TRAINING_STATES = ("training-state-0.pt", "training-state-1.pt")
"""Files of a draft that hold the state of a training after its last two epochs: while one is written the other is
whole. They are no part of the finished artifact."""

STATE_FORMAT = 1
"""Raised when the content of these files changes: from what another ckd left, training starts anew."""


def expect_shards(draft: Draft, total: int) -> None:
    """Note in a draft how many shards it will have."""
    write_text_durably(draft.partial / _TOTAL, str(total))


def shards_done(draft: Draft) -> tuple[int, int] | None:
    """Return (shards written, shards expected), or None if the draft does not know."""
    try:
        total = int((draft.partial / _TOTAL).read_text())
    except (OSError, ValueError):
        return None
    done = sum(draft.recorded(path.name) is not None for path in draft.partial.glob("part-*.parquet"))
    return done, total


def training_states(draft: Draft) -> dict[int, str]:
    """Return the files that hold the state of an interrupted training, by epoch, the latest first.

    Their sizes are checked, their digests are not.
    """
    receipts = {name: draft.recorded(name) for name in TRAINING_STATES}
    found = {
        int(receipt.facts["epoch"]): name
        for name, receipt in receipts.items()
        if receipt is not None and receipt.facts.get("format") == STATE_FORMAT
    }
    return dict(sorted(found.items(), reverse=True))


def forget_training(draft: Draft) -> None:
    """Remove the state of a training from a draft."""
    for name in TRAINING_STATES:
        draft.discard(name)
