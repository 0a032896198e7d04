"""The networks that are distilled, one package per teacher.

A teacher's module imports nothing heavy and offers

- ``Settings``: a pydantic model with a literal field ``kind``, and ``checkpoint``, ``pretrain`` and ``adapt`` as far as
  the kind has them;
- ``NEEDS_TEXT``: whether it reads the domain's item text vectors;
- ``open_teacher(folder, corpus, text, device, dtype)``: the frozen teacher of one domain, a
  :class:`ckd.stages.teachers.contract.Teacher`.

A frozen teacher is a folder with ``config.json`` and ``model.safetensors``.
"""

from ckd.stages.registry import Registry

TEACHERS = Registry("ckd.teachers", {"unisrec": "ckd.stages.teachers.unisrec", "scores": "ckd.stages.teachers.scores"})
