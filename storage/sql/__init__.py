"""SQL over the store: documented views; nothing else can be read through them, and nothing written."""

from ckd.storage.sql.answer import Answer, ask
from ckd.storage.sql.connection import open_views
from ckd.storage.sql.contents import AgreementSource, Contents, LabelSource
from ckd.storage.sql.schema import EXAMPLES, VIEWS, Column, View

__all__ = [
    "EXAMPLES",
    "VIEWS",
    "AgreementSource",
    "Answer",
    "Column",
    "Contents",
    "LabelSource",
    "View",
    "ask",
    "open_views",
]
