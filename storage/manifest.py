"""The manifest of an artifact: what it was made from, its files, and a digest of the manifest itself.

The manifest is written in one way only, so that each of its bits counts: a text that is not exactly what its content is
written as, that does not hold its own digest, or whose inputs do not give its key, is no manifest.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ckd.storage.errors import UserError
from ckd.storage.keys import canonical_json, key_of

MANIFEST = "manifest.json"
SPARE = "manifest.spare.json"
"""A second copy, which no reader looks at: from it a damaged manifest is mended without recomputing anything."""
MANIFEST_SCHEMA = 2
"""Version of the form. Every later one keeps ``schema`` and ``digest``, so that a newer manifest and a damaged one can
be told apart."""
_WITHOUT_DIGEST = 1
"""The form before, which had no digest and no spare copy; it is read."""
_DIGEST = "digest"
_ENTRIES = {"kind", "key", "inputs", "files", "facts"}


def written(content: Mapping[str, Any]) -> str:
    """Return the text of a manifest, with its digest.

    Raises:
        TypeError, ValueError: the content has no JSON form.
    """
    whole = {"schema": MANIFEST_SCHEMA, **content}
    return _text({**whole, _DIGEST: _digest(whole)})


def parsed(text: str, where: object) -> dict[str, Any] | None:
    """Return the content of a manifest, or None if it is damaged.

    Args:
        text: of the file.
        where: the file, for a message.

    Raises:
        UserError: a newer version of ckd wrote it.
    """
    try:
        manifest = json.loads(text)
        schema = manifest["schema"]
        whole = schema == _WITHOUT_DIGEST or _holds_its_digest(manifest, text)
        if whole and schema not in (_WITHOUT_DIGEST, MANIFEST_SCHEMA):
            raise UserError(
                f"{where} has manifest schema {schema}, this ckd reads schema {MANIFEST_SCHEMA}: "
                "use the version of ckd that wrote it, or another store"
            )
        sound = manifest.keys() >= _ENTRIES and key_of(manifest["kind"], manifest["inputs"]) == manifest["key"]
        return manifest if whole and sound else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def content_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a manifest was written of, whatever its form."""
    return {name: value for name, value in manifest.items() if name not in ("schema", _DIGEST)}


def _holds_its_digest(manifest: Mapping[str, Any], text: str) -> bool:
    content = {name: value for name, value in manifest.items() if name != _DIGEST}
    return manifest[_DIGEST] == _digest(content) and text == _text(manifest)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def _text(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
