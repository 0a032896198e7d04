"""How far an interrupted artifact of many shards got, without opening any of them."""

from ckd.storage.artifact import Draft
from ckd.storage.files import write_text_durably

_TOTAL = ".shards"


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
