"""The base of every settings model.

Each stage keeps its own settings in a module that imports no heavy library, so that the command line can check a
configuration and say what would be done without loading torch.
"""

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


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
