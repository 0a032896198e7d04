"""The base of every settings model.

Each stage keeps its own settings in a module that imports no heavy library, so that the command line can check a
configuration and say what would be done without loading torch.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError


class RelativeToFile:
    """Marks text that is a path, counted from the folder of the configuration file where it is relative."""


Located = Annotated[str, RelativeToFile()]
"""A path in which ``{domain}`` may stand for the name of the domain that is asked for."""


class FolderOrUrl:
    """Marks text that is an fsspec URL, or a path, counted from the folder of the configuration file."""


Place = Annotated[str, FolderOrUrl()]
"""A folder of this machine, or the prefix of an object store."""


class NameOrFolder:
    """Marks text that is a published name, or a path: where it starts with ``.``, ``/`` or ``~`` or is a folder."""


Published = Annotated[str, NameOrFolder()]
"""A model of the Hugging Face hub by its name, or a local folder with its files."""

TextField = Literal["title", "brand", "categories", "description"]
TextStyle = Literal["plain", "unisrec"]
TextPooling = Literal["mean", "cls", "last"]


class Settings(BaseModel):
    """Immutable; unknown keys are errors; a field's description is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_values_are_no_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic would read `seed: yes` as 1.
        annotation = cls.model_fields[str(info.field_name)].annotation
        for kind, name in ((int, "int_type"), (float, "float_type")):
            if isinstance(value, bool) and kind in (annotation, *get_args(annotation)):
                raise PydanticCustomError(name, "a number is needed")
        return value

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[str]:
        """Yield what is wrong with values that are valid each by itself and not together; a subclass says what.

        Args:
            values: of all fields. They may be unchecked, of any type, so that such problems are reported together
                with all others.
        """
        yield from ()

    @model_validator(mode="after")
    def _no_conflicts(self) -> Self:
        for text in self.conflicts(vars(self)):
            raise ValueError(text)
        return self


def undivided(hidden: Any, heads: Any) -> Iterator[str]:
    """Yield the problem of a width that is no multiple of the attention heads; values may be unchecked."""
    if isinstance(hidden, int) and isinstance(heads, int) and heads > 0 and hidden % heads:
        yield f"hidden ({hidden}) must be a multiple of heads ({heads})"


def distinct(fields: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return the fields of a text, if each is named once; a validator."""
    if fields is not None and len(set(fields)) != len(fields):
        raise ValueError("names a field twice")
    return fields
