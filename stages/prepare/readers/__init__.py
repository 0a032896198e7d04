"""One module per format of raw data.

Most read a file: a module with ``read(path: pathlib.Path) -> pyarrow.Table``, all rows in the file's order under the
file's own column names. It raises :class:`~ckd.storage.errors.UserError` for a file that it can't read.
Third parties add such a format by an entry point in the group ``ckd.readers``, its name the extension without dot.

``unisrec`` and ``recformer`` read a folder as a teacher's authors lay it out.
"""

from ckd.stages.registry import Registry

READERS = Registry(
    "ckd.readers",
    {
        "parquet": "ckd.stages.prepare.readers.parquet",
        "csv": "ckd.stages.prepare.readers.delimited",
        "tsv": "ckd.stages.prepare.readers.delimited",
        "jsonl": "ckd.stages.prepare.readers.jsonl",
    },
)
"""File extension to reader."""
