"""A teacher from a package of its own, really installed; and the line that each thing it may lack is answered with."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

PLUGIN = Path(__file__).parents[1] / "fixtures" / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which pip has installed the plug-in, without a network."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PLUGIN, folder / "source")  # a build leaves files beside the source
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(folder / "site")]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(folder / "source")], check=True)
    return folder / "site"


@pytest.fixture
def with_plugin(workplace, monkeypatch):
    """A function that puts a folder of packages before all others, and gives the workplace a popularity teacher."""

    def use(site, section="kind: popularity"):
        monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        path = workplace.folder / "pipeline.yaml"
        path.write_text(path.read_text().replace("teachers:\n", f"teachers:\n  liked: {{{section}}}\n"))
        return workplace

    return use


def test_an_installed_teacher_labels_with_what_it_says(installed, with_plugin, world):
    place = with_plugin(installed, "kind: popularity, smoothing: 2")
    done = place.ckd("precompute")
    assert done.returncode == 0, done.stderr
    (folder,) = place.store.glob("labels/teacher=liked/domain=tiny/key=*")
    rows = pa.concat_tables([pq.read_table(path) for path in folder.glob("part-*.parquet")]).to_pylist()
    assert len(rows) == world.corpus.n_positions
    counts = world.corpus.items["popularity"].to_numpy() + 2
    expected = np.log(counts / counts.sum())
    best = np.argsort(-expected.astype(np.float32), kind="stable")[:7]
    ids = world.corpus.items["item_id"].to_pylist()
    for row in rows:
        assert row["items"] == best.tolist()
        np.testing.assert_allclose(row["logprobs"], expected[best], rtol=1e-3)
        assert row["target_logprob"] == pytest.approx(expected[ids.index(row["target"])], rel=1e-5)


def test_its_settings_are_documented_and_checked_like_ours(installed, with_plugin):
    place = with_plugin(installed, "kind: popularity, smoothing: -1")
    assert "teachers.<name>.smoothing (popularity)" in place.ckd("config", "--keys").stdout
    done = place.ckd("status")
    assert done.returncode == 2
    assert done.stderr == "error: pipeline.yaml:7: teachers.liked.smoothing: must be above 0, not -1\n"


def test_without_it_its_kind_is_unknown(with_plugin, tmp_path):
    done = with_plugin(tmp_path).ckd("status")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: pipeline.yaml:7: teachers.liked.kind: unknown kind 'popularity'; known kinds: "
    )


# --- what a package may lack

GOOD = (PLUGIN / "ckd_popularity" / "__init__.py").read_text()


def site_with(folder, code, kind="popularity"):
    """A folder with a package as pip leaves it, its module of this code."""
    module, info = folder / "ckd_popularity", folder / "ckd_popularity-1.0.dist-info"
    module.mkdir(parents=True)
    info.mkdir()
    (module / "__init__.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ckd-popularity\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[ckd.teachers]\n{kind} = ckd_popularity\n")
    return folder


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (GOOD.replace("def open_teacher", "def open"), "has no function open_teacher"),
        (GOOD.replace("class Settings", "class Options"), "has no class Settings"),
        (
            GOOD.replace("class Settings(TeacherSettings)", "class Settings"),
            "has a Settings that is no subclass of ckd.stages.teachers.settings.TeacherSettings",
        ),
        (
            GOOD.replace('    kind: Literal["popularity"] = "popularity"\n', ""),
            "has a Settings without the field `kind: Literal['popularity'] = 'popularity'`",
        ),
        (
            GOOD.replace('"popularity"', '"popular"'),
            "has a Settings without the field `kind: Literal['popularity'] = 'popularity'`",
        ),
        ("import nothing_of_this_name\n", "cannot be imported (ModuleNotFoundError: No module named 'nothing_of_th"),
        ("def open_teacher(:\n", "cannot be imported (SyntaxError: "),
    ],
)
def test_a_package_that_lacks_something_is_answered_with_one_line(with_plugin, tmp_path, code, said):
    done = with_plugin(site_with(tmp_path / "site", code)).ckd("status")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    module = "the module ckd_popularity of the package ckd-popularity, entry point 'popularity' of ckd.teachers, "
    assert line.startswith(f"error: {module}{said}")
    assert line.endswith("; mend that package or uninstall it")


def test_a_package_cannot_take_the_name_of_a_kind_of_ours(with_plugin, tmp_path):
    done = with_plugin(site_with(tmp_path / "site", GOOD, kind="sasrec")).ckd("status")
    assert done.returncode == 2
    assert "entry point 'sasrec' of ckd.teachers, takes a name that ckd has itself; " in done.stderr


def test_a_teacher_that_is_to_be_trained_needs_the_module_that_trains_it(with_plugin, tmp_path):
    trained = GOOD + "\n\nSettings.adaptation = lambda self: self\n"
    site = site_with(tmp_path / "site", trained)
    place = with_plugin(site)
    for code, said in [(None, "cannot be imported (ModuleNotFoundError: "), ("", "has no function adapt_into")]:
        if code is not None:
            (site / "ckd_popularity" / "training.py").write_text(code)
        done = place.ckd("pretrain")
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: the module ckd_popularity.training of the package ckd-popularity, ")
        assert said in line
