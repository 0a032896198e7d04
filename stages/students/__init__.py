"""The networks that are served, one package per student.

A student's module imports nothing heavy and offers

- ``Settings``: a subclass of ``ckd.stages.students.settings.StudentSettings`` with a literal field ``kind``;
- ``build(settings, domains)``: the network over some domains, freshly initialised from torch's global random state.

The network is a ``torch.nn.Module`` with the methods of :class:`ckd.stages.students.contract.Student`.
"""

from ckd.stages.registry import Registry
from ckd.stages.students.settings import StudentSettings

STUDENTS = Registry(
    "ckd.students",
    {
        "sasrec": "ckd.stages.students.sasrec",
        "esasrec": "ckd.stages.students.esasrec",
        "gru4rec": "ckd.stages.students.gru4rec",
        "bert4rec": "ckd.stages.students.bert4rec",
        "fm": "ckd.stages.students.fm",
        "deepfm": "ckd.stages.students.deepfm",
        "lightgcn": "ckd.stages.students.lightgcn",
    },
    ("build",),
    StudentSettings,
)
