"""The configuration: one model whose parts are the settings of the stages."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, ValidationError, model_validator
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from ckd.pipeline.config.cluster import ClusterSettings
from ckd.pipeline.config.contradictions import contradictions
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.evaluate.settings import EvaluateSettings
from ckd.stages.precompute.settings import LabelSettings
from ckd.stages.prepare.settings import DomainSettings
from ckd.stages.registry import Registry
from ckd.stages.settings import Place, Settings
from ckd.stages.students import STUDENTS
from ckd.stages.teachers import TEACHERS
from ckd.stages.text.settings import TextSettings

CONTRADICTION = "contradiction"
"""Type of the validation errors that two valid settings make together."""


class ByKind:
    """Marks a value that is one of a registry's ``Settings``, told apart by its key ``kind``.

    A plain union would do, but for two things: pydantic takes no union of one, and with one kind registered
    ``kind`` could be left out, so that installing a plug-in would break a configuration that worked.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def models(self) -> dict[str, type[Settings]]:
        """Return the settings model of every registered kind, ours first."""
        return {kind: self._registry.load(kind).Settings for kind in self._registry.names()}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {kind: handler.generate_schema(model) for kind, model in self.models().items()}
        return core_schema.tagged_union_schema(choices, discriminator="kind")


def _plain(name: str) -> str:
    # Names become folders of the store and values in SQL.
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
        raise ValueError("a name is made of letters, digits, '_', '-' and '.', and does not start with '.'")
    return name


Name = Annotated[str, AfterValidator(_plain)]
TeacherSettings = Annotated[Any, ByKind(TEACHERS)]
StudentSettings = Annotated[Any, ByKind(STUDENTS)]


class Configuration(Settings):
    """Everything that determines what the pipeline does."""

    store: Place = Field(
        default="store",
        min_length=1,
        description="where all that ckd makes is kept: a folder, or an fsspec URL such as s3://bucket/prefix",
    )
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="seed of the students; a teacher that is trained has its own"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where networks run; auto takes a GPU where there is one"
    )
    cluster: ClusterSettings = Field(
        default_factory=ClusterSettings,
        description="where the runs of a sweep are trained: local, or a mapping with the scheduler of a Dask cluster",
    )
    domains: dict[Name, DomainSettings] = Field(
        min_length=1, description="domains to recommend in, by name; at least one"
    )
    sources: dict[Name, DomainSettings] = Field(
        default_factory=dict, description="domains used only to pre-train teachers, by name"
    )
    text: TextSettings = Field(default_factory=TextSettings, description="how item attributes become vectors")
    teachers: dict[Name, TeacherSettings] = Field(
        default_factory=dict, description="networks to distil from, by name; `kind` says which network"
    )
    labels: LabelSettings = Field(
        default_factory=LabelSettings, description="what is stored of a teacher's opinion at each position"
    )
    students: dict[Name, StudentSettings] = Field(
        default_factory=dict, description="networks to train and serve, by name; `kind` says which network"
    )
    distill: DistillSettings = Field(
        default_factory=DistillSettings, description="training of the students, with and without teachers"
    )
    evaluate: EvaluateSettings = Field(
        default_factory=EvaluateSettings, description="how held-out targets are ranked and reported"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        found = contradictions(self.model_dump())
        if found:
            raise ValidationError.from_exception_data(
                "Configuration",
                [
                    InitErrorDetails(
                        type=PydanticCustomError(CONTRADICTION, "{text}", {"text": problem.text}),
                        loc=problem.key,
                        input=None,
                    )
                    for problem in found
                ],
            )
        return self
