"""Raw files to corpus: read, validate, drop what is unusable, keep the k-core, code it.

:mod:`~ckd.stages.prepare.address` says which corpus a domain's settings and files make, and imports
nothing heavy; :func:`ckd.stages.prepare.prepare.prepare_domain` makes it.
"""
