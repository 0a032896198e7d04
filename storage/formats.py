"""Versions of what is written. Each is part of the keys of its kind, so what an older one wrote is not mistaken
for what a newer one would write. Kept apart from the writers so that a key can be computed without pyarrow."""

CORPUS_FORMAT = 1
"""Raised when the meaning of a corpus' files changes."""

TEXT_FORMAT = 1
"""Raised when the joining of fields, the pooling or the batching of texts changes."""

TEACHER_FORMAT = 3
"""Raised when the training of teachers changes."""

LABEL_FORMAT = 1
"""Raised when the meaning or the encoding of the label rows changes."""

AGREEMENT_FORMAT = 1
"""Raised when the meaning of the columns of stored agreement changes."""

RUN_FORMAT = 3
"""Raised when the training of students changes, so that old runs no longer compare with new ones."""

CURVE = "curve.parquet"
"""File name of the training curve, which is kept with teachers and runs and determines nothing."""
