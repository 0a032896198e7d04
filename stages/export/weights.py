"""A student as weights, settings and items in one folder, and how it is loaded again without a store."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors.torch import load, save

from ckd.stages.export.examples import weights_example
from ckd.stages.export.folder import CONFIG, ITEMS, LAYOUT, README, USERS, read_mark, write_config
from ckd.stages.export.student import Exported, described, users_of
from ckd.stages.students.contract import ScoresHistories, by_name
from ckd.stages.students.serving import Serving, UserServing
from ckd.stages.students.trained import rebuild
from ckd.storage.corpus import Corpus
from ckd.storage.errors import DamagedArtifact, UserError
from ckd.storage.files import sha256_file
from ckd.storage.parquet import read_table, write_table
from ckd.storage.runs import WEIGHTS, corpora_of


def write_weights(found: Exported, corpora: Mapping[str, Corpus], folder: Path) -> None:
    """Write the weights, the items of all domains of the student, its configuration and an example.

    Args:
        found: the student in the domain of the example.
        corpora: domain to its corpus, of all domains of the run, in its order.
        folder: empty.
    """
    add_student(found, corpora, folder)
    (folder / README).write_text(weights_example(found), encoding="utf-8")
    write_config(folder, weights_config("safetensors", found, corpora))


def add_student(found: Exported, corpora: Mapping[str, Corpus], folder: Path) -> None:
    """Write what :func:`load_export` reads, but for the configuration.

    Of a student of users that is what it makes of its graph, the vectors of users and items, and no weights.
    """
    if isinstance(found.serving, UserServing):
        # Not save_file: what it raises on a full disk is no OSError.
        vectors = {name: tensor.contiguous() for name, tensor in found.serving.state_dict().items()}
        (folder / WEIGHTS).write_bytes(save(vectors))
        write_table(users_of(found), folder / USERS)
    else:
        (folder / WEIGHTS).write_bytes(found.run.verified(WEIGHTS).read_bytes())
    served = _served(found, corpora)
    for name, corpus in served.items():
        write_table(corpus.items, folder / items_file(name, served))


def _served(found: Exported, corpora: Mapping[str, Corpus]) -> Mapping[str, Corpus]:
    """Return the domains that an export holds: weights are of all, vectors of users and items of one."""
    return {found.name: corpora[found.name]} if found.of_users else corpora


def items_file(domain: str, domains: Collection[str]) -> str:
    """Return the file of a domain's items; each has its own, for their identifiers may be of different types."""
    return ITEMS if len(domains) == 1 else f"items-{domain}.parquet"


def weights_config(form: str, found: Exported, corpora: Mapping[str, Corpus]) -> dict[str, Any]:
    """Return what :func:`load_export` needs to know, beside what every export says."""
    keys, served = corpora_of(found.run), _served(found, corpora)
    domains = [
        {"domain": name, "corpus": keys[name], "n_items": corpus.n_items, "items": items_file(name, served)}
        for name, corpus in served.items()
    ]
    return {"format": form, **described(found), "serves": _USERS if found.of_users else _HISTORIES, "domains": domains}


_USERS, _HISTORIES = "users", "histories"


def load_export(folder: str | Path, domain: str | None = None) -> tuple[Serving | UserServing, pa.Table]:
    """Return a student of an export of the format ``safetensors`` or ``faiss``, and its items in order of code.

    The student is a :class:`ckd.stages.students.serving.Serving`, on the CPU: called with item codes int64 [B, L]
    (oldest first, right-padded, the last ``max_length`` of ``config.json`` at most) and lengths int64 [B] it returns
    the scores of all items of the domain, float [B, n_items]. One that knows its users and no others is a
    :class:`ckd.stages.students.serving.UserServing`, and ``users.parquet`` tells the users' codes.

    Args:
        folder: of the export.
        domain: which one; it may be left out if the student has one only, or the export is of one.

    Raises:
        UserError: the folder is no such export, or has no such domain.
        DamagedArtifact: a file's bytes differ from what was written.
    """
    folder = Path(folder)
    config = _read_config(folder)
    names = [entry["domain"] for entry in config["domains"]]
    chosen = config["domain"] if domain is None else domain
    if chosen not in names:
        raise UserError(f"{folder} has no domain {chosen!r}; it has {', '.join(names)}")
    corpora = {
        entry["domain"]: _catalogue(_verified(folder, entry["items"], config), entry["corpus"])
        for entry in config["domains"]
    }
    weights = _verified(folder, WEIGHTS, config)
    if config.get("serves") == _USERS:
        _verified(folder, USERS, config)
        return UserServing(**load(weights.read_bytes())), corpora[chosen].items
    student = rebuild(config["settings"], weights, list(corpora.values()))
    if not isinstance(student, ScoresHistories):
        raise UserError(f"{folder}: students of kind {config['settings']['kind']!r} score no histories here")
    return student.serving(by_name(corpora)[chosen]), corpora[chosen].items


def _read_config(folder: Path) -> dict[str, Any]:
    if read_mark(folder) != LAYOUT:
        raise UserError(f"{folder} is no export that this ckd reads; name the folder that `ckd export` wrote")
    config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if "domains" not in config:
        raise UserError(f"{folder} is an export of the format {config['format']}, which holds no weights")
    return config


def _verified(folder: Path, name: str, config: Mapping[str, Any]) -> Path:
    path = folder / name
    try:
        whole = sha256_file(path) == config["files"][name]
    except OSError:
        whole = False
    if not whole:
        raise DamagedArtifact(f"{path} is damaged: its bytes are not those that were written; export the run again")
    return path


def _catalogue(items: Path, key: str) -> Corpus:
    """Return the items of a domain, with no users."""
    return Corpus(key, read_table(items), pa.array([], pa.string()), np.zeros(1, np.int64), np.empty(0, np.int32))
