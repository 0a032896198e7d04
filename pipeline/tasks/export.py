"""A student as a folder that is served without ckd's store."""

from pathlib import Path

from ckd.pipeline.mishaps import heed_interrupt
from ckd.pipeline.progress import console, errors
from ckd.pipeline.stored import Place, choose_run, corpora_in
from ckd.stages.export.folder import folder_aside, refuse_existing
from ckd.stages.export.student import exported
from ckd.stages.students.contract import by_name
from ckd.stages.students.trained import load_student
from ckd.storage.errors import UserError
from ckd.storage.runs import domains_of

MEASURED_AT = 20
"""Items of the lists that the recall of an index is measured on, if nothing else is asked for."""


def export(
    place: Place,
    name: str,
    form: str,
    domain: str | None,
    out: Path | None,
    force: bool,
    top_k: int | None,
    index: str | None,
    search: str | None,
) -> None:
    """Write one student and say where.

    Args:
        place: where runs are looked for.
        name: of the run, as the command line has it.
        form: ``onnx``, ``safetensors`` or ``faiss``.
        domain: which of the run's domains.
        out: folder to make; by default one below ``exports``.
        force: replace an export that is there.
        top_k: items of a list: what the ONNX model gives, or what the index's recall is measured on.
        index, search: of FAISS.

    Raises:
        UserError: there is no such run, the folder is taken, or the student cannot be exported so.
    """
    _refuse_contradictions(form, top_k, index, search)
    if form == "onnx":
        from ckd.stages.export.onnx import require_onnx

        require_onnx()
    chosen = choose_run(place, name)
    if chosen.note:
        errors.print(chosen.note)
    run, names = chosen.run, domains_of(chosen.run)
    # Weights are of all domains; which of them the example is about matters to nobody.
    served = names[0] if form == "safetensors" and domain is None else chosen.domain_or(domain)
    whose = "+".join(names) if form == "safetensors" else served
    folder = out or Path("exports") / f"{run.inputs['student']}-{whose}-{run.path.name}" / form
    refuse_existing(folder, force)
    corpora = corpora_in(place.store, run)
    domains = by_name(corpora)
    found = exported(run, load_student(run, corpora), served, domains[served])
    with folder_aside(folder, force) as aside:
        if form == "onnx":
            from ckd.stages.export.onnx import write_onnx

            difference = write_onnx(found, aside, top_k)
            said = f"onnxruntime gives the student's scores, largest difference {difference:.1e}"
        elif form == "faiss":
            from ckd.stages.export.faiss import FLAT, write_index

            recall = write_index(found, corpora, aside, index or FLAT, search, top_k or MEASURED_AT)
            said = f"recall@{recall.k} {recall.share:.4f} of the exact lists of {recall.queries:,} users"
        else:
            from ckd.stages.export.weights import write_weights

            write_weights(found, corpora, aside)
            said = "weights, settings and items"
        heed_interrupt()
    console.print(f"{folder}: {said}")


def _refuse_contradictions(form: str, top_k: int | None, index: str | None, search: str | None) -> None:
    given = {"--index": index, "--search": search}
    for option, value in given.items():
        if value is not None and form != "faiss":
            raise UserError(f"{option} goes with --format faiss only; leave it out")
    if top_k is not None and form == "safetensors":
        raise UserError("--top-k goes with --format onnx or faiss; leave it out")
