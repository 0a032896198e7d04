"""The base of every settings model.

Each stage keeps its own settings in a module that imports no heavy library, so that the command line can check a
configuration and say what would be done without loading torch.
"""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Immutable; unknown keys are errors; a field's description is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)
