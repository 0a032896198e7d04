"""`ckd export`: a student leaves the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ckd.pipeline.commands import of_a_run

if TYPE_CHECKING:
    from ckd.pipeline.stored import Place

FORMATS = ("onnx", "safetensors", "faiss")


@click.command(name="export")
@click.option("--format", "form", type=click.Choice(FORMATS), required=True, help="What to write.")
@click.option("--domain", metavar="NAME", help="Domain to serve, of a student that has several.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder to make.  [default: exports/<student>-<domain>-<key>/<format>]",
)
@click.option("--force", is_flag=True, help="Replace an export that is there.")
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    metavar="K",
    help="onnx: give the K best items  [default: all scores]. faiss: measure recall@K  [default: 20].",
)
@click.option("--index", metavar="FACTORY", help="faiss: the index, such as HNSW32 or IVF64,Flat.  [default: Flat]")
@click.option("--search", metavar="PARAMETERS", help="faiss: how it is searched, such as nprobe=8 or efSearch=64.")
@of_a_run
def command(
    place: Place,
    run: str,
    form: str,
    domain: str | None,
    out: Path | None,
    force: bool,
    top_k: int | None,
    index: str | None,
    search: str | None,
) -> None:
    """Write a trained student into a folder that is served without the store.

    RUN is the key of a run or the beginning of one, or STUDENT/DOMAIN, the distilled run of the configuration
    (STUDENT/DOMAIN/plain, the one without distillation).

    \b
    onnx         a model: item codes of histories (of a lightgcn: codes of users) in, scores of all items out
    safetensors  weights, settings and items, loaded by ckd.stages.export.weights.load_export
    faiss        an index of the item vectors, and the weights that make its queries

    Each folder has a README.md with an example that runs. Only the store is needed: no raw files, no teachers.
    """
    from ckd.pipeline.tasks.export import export

    export(place, run, form, domain, out, force, top_k, index, search)
