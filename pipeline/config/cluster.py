"""Settings of the processes that train the runs of a sweep."""

import re
from typing import Any

from pydantic import Field, field_validator, model_validator

from ckd.stages.settings import Settings

_LOCAL = "local"
_FORM = "local, or {scheduler: tcp://HOST:PORT}"


class ClusterSettings(Settings):
    """Where the runs of a sweep are trained; written ``local``, that is on this machine, or as a mapping."""

    scheduler: str | None = Field(
        default=None,
        description="address of a Dask scheduler whose workers see the same store, such as tcp://host:8786; without "
        "one, processes are started on this machine",
    )

    @model_validator(mode="before")
    @classmethod
    def _local_by_name(cls, value: Any) -> Any:
        if value == _LOCAL:
            return {}
        if isinstance(value, str):
            raise ValueError(f"must be {_FORM}, not {value!r}")
        return value

    @field_validator("scheduler")
    @classmethod
    def _an_address(cls, scheduler: str | None) -> str | None:
        if scheduler is not None and not re.fullmatch(r"(tcp|tls)://\S+:\d+", scheduler):
            raise ValueError(f"must be an address such as tcp://host:8786, not {scheduler!r}")
        return scheduler
