"""The configuration: what is accepted, where its paths count from, and how it is explained."""

from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pytest
import yaml
from config_files import SMALLEST, WHOLE, written
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from ckd.pipeline.config import reference
from ckd.pipeline.config.load import load_configuration
from ckd.pipeline.config.models import ByKind, Configuration
from ckd.pipeline.config.schema import kinds_of, meaning, model_of, values_of
from ckd.stages import settings as stage_settings
from ckd.stages.distill.settings import DistillSettings


def test_the_smallest_configuration_needs_one_domain(tmp_path: Path) -> None:
    configuration = load_configuration(written(tmp_path, SMALLEST))
    assert list(configuration.domains) == ["office"]
    assert (configuration.seed, configuration.device, configuration.sources) == (0, "auto", {})
    assert configuration.store == str(tmp_path / "store")


def test_a_whole_configuration_is_read(tmp_path: Path) -> None:
    configuration = load_configuration(written(tmp_path, WHOLE))
    assert list(configuration.domains) == ["office", "2020"]
    assert configuration.teachers["warm"].pretrain.network.hidden == 32
    assert configuration.students["small"].heads == 4
    assert configuration.labels.splits == ("train", "valid")


def test_a_number_that_yaml_takes_for_text_is_a_number(tmp_path: Path) -> None:
    path = written(tmp_path, SMALLEST + "students:\n  small: {kind: sasrec, learning_rate: 1e-3}\n")
    assert yaml.safe_load(path.read_text())["students"]["small"]["learning_rate"] == "1e-3"
    assert load_configuration(path).students["small"].learning_rate == 0.001
    assert load_configuration(path, ["students.small.learning_rate=2e-4"]).students["small"].learning_rate == 0.0002


def test_names_of_keys_are_text_as_written(tmp_path: Path) -> None:
    text = "domains:\n  2020: {path: a}\n  on: {path: b}\n  1e3: {path: c}\n  0x10: {path: d}\n"
    assert list(load_configuration(written(tmp_path, text)).domains) == ["2020", "on", "1e3", "0x10"]


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    text = "domains:\n  a: &a {path: x, k_core: 2}\n  b:\n    <<: *a\n    k_core: 3\n"
    configuration = load_configuration(written(tmp_path, text))
    assert (configuration.domains["b"].path, configuration.domains["b"].k_core) == (tmp_path / "x", 3)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALLEST.encode())
    assert list(load_configuration(path).domains) == ["office"]


@pytest.mark.parametrize("loss", ["{top_k: 1}", "{in_batch: 0, top_k: 1}"])
def test_labels_without_state_do_where_no_loss_needs_it(tmp_path: Path, loss: str) -> None:
    path = written(tmp_path, WHOLE)
    assert not load_configuration(path, ["labels.state=false", f"distill.loss={loss}"]).labels.state
    assert not load_configuration(path, ["labels.state=false", "distill.teachers=[]"]).labels.state


# --- paths


def test_relative_paths_count_from_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    written(tmp_path / "project", WHOLE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    configuration = load_configuration(Path("project/pipeline.yaml"), ["text.encoder=./encoders/mine"])
    project = tmp_path / "project"
    assert configuration.store == str(project / "made")
    assert configuration.domains["office"].path == project / "data/office"
    assert configuration.domains["office"].text_vectors == project / "data/office.npy"
    assert configuration.domains["2020"].path == Path("/elsewhere/2020")
    assert configuration.sources["food"].path == Path("/home/somebody/food")
    assert configuration.teachers["cold"].checkpoint == str(project / "teachers/{domain}")
    assert configuration.text.encoder == str(project / "encoders/mine")


def test_paths_in_overrides_count_from_the_folder_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, WHOLE)
    overrides = ["store=there", "domains.office.path=x", "teachers.cold.checkpoint=../y"]
    configuration = load_configuration(path, overrides)
    assert configuration.store == str(tmp_path / "there")
    assert configuration.domains["office"].path == tmp_path / "x"
    assert configuration.teachers["cold"].checkpoint == str(tmp_path / "../y")


def test_an_encoder_that_is_a_name_stays_a_name(tmp_path: Path) -> None:
    path = written(tmp_path, SMALLEST)
    assert load_configuration(path).text.encoder == "sentence-transformers/all-MiniLM-L6-v2"
    assert load_configuration(path, ["text.encoder=/e"]).text.encoder == "/e"


def test_the_home_of_nobody_is_just_a_path(tmp_path: Path) -> None:
    configuration = load_configuration(written(tmp_path, SMALLEST), ["store=~nobody-of-that-name/x"])
    assert configuration.store == str(tmp_path / "~nobody-of-that-name/x")


# --- kinds


class First(stage_settings.Settings):
    """The first kind."""

    kind: Literal["first"] = "first"
    size: int = Field(default=1, description="of it")


class Second(stage_settings.Settings):
    """The second kind."""

    kind: Literal["second"] = "second"
    name: str = Field(description="of it")


class Registered:
    """A registry of some settings models, as another package would extend ours."""

    def __init__(self, **models: type[stage_settings.Settings]) -> None:
        self._models = models

    def names(self) -> list[str]:
        return list(self._models)

    def load(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(Settings=self._models[name])


def test_kinds_are_told_apart_with_one_and_with_many() -> None:
    one = TypeAdapter(Annotated[Any, ByKind(Registered(first=First))])  # type: ignore[arg-type]
    many = TypeAdapter(Annotated[Any, ByKind(Registered(first=First, second=Second))])  # type: ignore[arg-type]
    assert one.validate_python({"kind": "first"}) == First()
    assert many.validate_python({"kind": "second", "name": "x"}) == Second(name="x")
    for adapter in (one, many):
        with pytest.raises(ValidationError):
            adapter.validate_python({"size": 2})


# --- the reference


def every_model() -> list[type[BaseModel]]:
    """Return each settings model that a configuration can hold."""
    found: list[type[BaseModel]] = []
    waiting: list[type[stage_settings.Settings]] = [Configuration]
    while waiting:
        model = waiting.pop()
        found.append(model)
        for field in model.model_fields.values():
            values = values_of(field.annotation)
            inner = [model_of(field.annotation), model_of(values), *kinds_of(values).values()]
            waiting.extend(one for one in inner if one is not None and one not in found)
    return found


def test_every_key_has_a_meaning() -> None:
    models = every_model()
    assert len(models) > 10
    assert [
        f"{model.__module__}.{model.__name__}.{name}"
        for model in models
        for name in model.model_fields
        if not meaning(model, name)
    ] == []


def test_the_printed_configuration_loads_back_to_an_equal_one(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for text in (SMALLEST, WHOLE):
        configuration = load_configuration(written(tmp_path, text))
        printed = reference.as_yaml(configuration)
        assert load_configuration(written(tmp_path / "other", printed)) == configuration


def test_each_printed_key_stands_under_its_meaning_and_default(tmp_path: Path) -> None:
    lines = reference.as_yaml(load_configuration(written(tmp_path, WHOLE))).splitlines()
    seed = lines.index("seed: 7")
    assert lines[seed - 1] == "# seed of the students; a teacher that is trained has its own (default: 0)"
    path = lines.index(f"    path: {tmp_path}/data/office")
    assert lines[path - 1].endswith("(required)")
    assert max(len(line) for line in lines if line.lstrip().startswith("#")) <= 110


def test_the_table_has_every_key_once() -> None:
    rows = reference.key_table().splitlines()
    keys = [row.split("  ")[0] for row in rows]
    assert len(set(keys)) == len(keys)
    expected = {"seed", "domains.<name>.path", "distill.curriculum.pacing", "students.<name>.heads (sasrec)"}
    assert expected <= set(keys)
    (alpha,) = [row for row in rows if row.startswith("distill.alpha ")]
    assert alpha.split("  ")[0] == "distill.alpha"
    assert "number >= 0 <= 1" in alpha
    assert f" {DistillSettings().alpha} " in alpha
