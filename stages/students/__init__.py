"""The networks that are served, one package per student.

A student's module imports nothing heavy and offers

- ``Settings``: a pydantic model with a literal field ``kind``;
- ``build(settings, n_items)``: the network, freshly initialised from torch's global random state.

The network is a ``torch.nn.Module`` with the methods of :class:`ckd.stages.students.contract.SequenceStudent`.
"""

from ckd.stages.registry import Registry
from ckd.stages.settings import Settings

STUDENTS = Registry("ckd.students", {"sasrec": "ckd.stages.students.sasrec"}, ("build",), Settings)
