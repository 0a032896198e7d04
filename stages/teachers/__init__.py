"""The networks that are distilled, one package per kind of teacher.

A kind's module imports nothing heavy and offers

- ``Settings``: a subclass of :class:`ckd.stages.teachers.settings.TeacherSettings` with a literal field ``kind``; it
  says which files make the frozen teacher and how it is trained, if ckd trains it;
- ``open_teacher(opening)``: the frozen teacher of one domain, from a :class:`ckd.stages.teachers.contract.Opening`;
  a :class:`ckd.stages.teachers.contract.Teacher`, or ``RankedLists`` where it is no dual encoder.

A kind that ckd trains has a module ``training`` beside it, with ``pretrain_into`` and ``adapt_into`` (as far as it is
pre-trained or adapted) and ``export``; what they add to a draft is a frozen teacher.
"""

from ckd.stages.registry import Registry
from ckd.stages.teachers.settings import TeacherSettings

TEACHERS = Registry(
    "ckd.teachers",
    {
        "unisrec": "ckd.stages.teachers.unisrec",
        "recformer": "ckd.stages.teachers.recformer",
        "scores": "ckd.stages.teachers.scores",
        "sasrec": "ckd.stages.teachers.sasrec",
        "embeddings": "ckd.stages.teachers.embeddings",
        "hf": "ckd.stages.teachers.hf",
    },
    offers=("open_teacher",),
    settings=TeacherSettings,
)
