"""Tensors are cut from the files of `torch.save` as torch itself would, and damaged files are named in one line."""

import io
import os
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckd.stages.teachers.archive import open_archive
from ckd.storage.errors import UserError

DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.pth"


def read(path, name="w"):
    with open_archive(path) as archive:
        return archive.tensor(name, archive.content[name])


def line_of(path, name="w"):
    with pytest.raises(UserError) as caught:
        read(path, name)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(str(path))
    return line.removeprefix(str(path)).lstrip(": ")


def rewritten(path, change, **options):
    """Write the archive again with the parts that ``change`` makes of its parts, by name without the root."""
    with zipfile.ZipFile(path) as archive:
        parts = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in change(parts).items():
            archive.writestr(f"archive/{name}", content)


# --- what is read


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_tensor_of_any_dtype_is_what_was_saved(path, dtype, protocol):
    saved = (3 * torch.randn(4, 5, generator=torch.Generator().manual_seed(1))).to(dtype)
    torch.save({"w": saved, "scalar": saved[1, 2].clone(), "empty": saved[:0]}, path, pickle_protocol=protocol)
    found = read(path)
    assert (found.dtype, found.shape) == (saved.dtype, saved.shape)
    assert torch.equal(found, saved)
    assert torch.equal(read(path, "scalar"), saved[1, 2])
    assert read(path, "empty").shape == (0, 5)


VIEWS = {
    "transposed": lambda t: t.T,
    "every second column": lambda t: t[:, 1::2],
    "a part": lambda t: t[2:4, 1:3],
    "another order of axes": lambda t: t.view(2, 3, 6).permute(2, 0, 1),
    "one column": lambda t: t[:, 3],
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_read_as_the_tensor_that_it_is(path, name):
    saved = VIEWS[name](torch.arange(36.0).view(6, 6))
    assert not saved.is_contiguous()
    torch.save({"w": saved}, path)
    found = read(path)
    assert torch.equal(found, saved)
    assert found.is_contiguous()
    assert found.untyped_storage().nbytes() == 4 * saved.numel()


def test_a_parameter_is_read_as_its_tensor(path):
    saved = torch.nn.Linear(3, 2)
    torch.save({"w": saved.weight}, path)
    assert torch.equal(read(path), saved.weight.detach())


def test_the_device_of_a_tensor_is_ignored(path):
    torch.save({"w": torch.arange(3.0)}, path)
    rewritten(
        path, lambda parts: parts | {"data.pkl": parts["data.pkl"].replace(b"\x03\0\0\0cpu", b"\x06\0\0\0cuda:7")}
    )
    assert torch.equal(read(path), torch.arange(3.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_numbers_of_a_machine_of_the_other_byte_order_are_turned(path, dtype):
    saved = torch.tensor([1.0, -2.0, 300.0]).to(dtype)
    torch.save({"w": saved}, path)
    width = saved.element_size()

    def turned(parts):
        raw = parts["data/0"]
        swapped = b"".join(raw[at : at + width][::-1] for at in range(0, len(raw), width))
        return parts | {"data/0": swapped, "byteorder": b"big"}

    rewritten(path, turned)
    assert torch.equal(read(path), saved)


def test_what_is_not_asked_for_may_be_damaged(path):
    torch.save({"w": torch.arange(3.0), "optimizer": torch.arange(5.0)}, path)
    rewritten(path, lambda parts: {name: content for name, content in parts.items() if name != "data/1"})
    assert torch.equal(read(path), torch.arange(3.0))
    assert line_of(path, "optimizer") == "its part data/1 is missing"


# --- what is not


@pytest.fixture
def saved(path):
    """A small file to be harmed."""
    torch.save({"w": torch.arange(6.0).view(2, 3), "list": [1]}, path)
    return path


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    assert line_of(tmp_path / "none.pth") == "cannot be opened: No such file or directory"
    assert line_of(tmp_path) == "cannot be opened: Is a directory"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b'{"not": "torch"}', b"\x00" * 100])
def test_another_file_is_named(path, content):
    path.write_bytes(content)
    assert line_of(path).startswith("is no file of torch.save, or a torn one")


def test_a_file_of_an_old_torch_is_answered_with_the_mend(path):
    torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert line_of(path) == (
        "is of the form that torch wrote before 1.6, which is not read; "
        "load it with torch and save it again with torch.save"
    )


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_a_torn_file_is_named(saved, kept):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(kept * len(content))])
    assert "torn" in line_of(saved)


def test_another_zip_archive_is_named(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "text")
    assert line_of(path) == "is a zip archive, but not one that torch.save wrote: it needs one data.pkl"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_part_that_stands_there_twice_is_not_read(saved):
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr(archive.namelist()[0], b"N.")
    assert "not one that torch.save wrote" in line_of(saved)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_archive_is_not_read(saved, method):
    """A few bytes could become any number of them."""
    rewritten(saved, lambda parts: parts, compression=method)
    assert "is compressed, which torch.save never does" in line_of(saved)


def test_a_changed_number_is_noticed(saved):
    content = saved.read_bytes()
    place = content.index(torch.arange(6.0).numpy().tobytes())
    saved.write_bytes(content[: place + 5] + b"\xff" + content[place + 6 :])
    assert line_of(saved).startswith("its part data/0 is damaged: Bad CRC-32")


@given(st.data())
def test_damage_anywhere_gives_the_tensor_or_one_line(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "file.pth"
    torch.save({"w": torch.arange(6.0)}, path)
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(damaged))
    try:
        with open_archive(path) as archive:
            if isinstance(archive.content, dict) and "w" in archive.content:
                archive.tensor("w", archive.content["w"])
    except UserError as error:
        assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize("change", [lambda raw: raw[:-4], lambda raw: raw + b"1234", lambda raw: b""])
def test_a_storage_of_another_length_is_not_read(saved, change):
    rewritten(saved, lambda parts: parts | {"data/0": change(parts["data/0"])})
    assert "the storage of tensor w has" in line_of(saved)
    assert "expected 24" in line_of(saved)


def with_view(path, offset, size, stride):
    """Replace the view of the saved tensor by another one."""

    class Viewed:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (
                torch.arange(6.0)._typed_storage(),
                offset,
                size,
                stride,
                False,
                {},
            )

    torch.save({"w": Viewed()}, path)


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (7,), (1,)),
        (1, (6,), (1,)),
        (6, (1,), (1,)),
        (6, (), ()),
        (0, (2, 2), (5, 1)),
        (0, (10**9, 10**9), (0, 0)),
        (2**40, (1,), (1,)),
    ],
)
def test_a_tensor_beyond_its_storage_is_not_read(path, offset, size, stride):
    with_view(path, offset, size, stride)
    said = f"tensor w of shape {list(size)} reaches beyond its storage of 6 elements"
    assert line_of(path) == said


@pytest.mark.parametrize(
    ("offset", "size", "stride"), [(5, (), ()), (0, (2, 3), (3, 1)), (1, (5,), (1,)), (0, (2, 2), (4, 1))]
)
def test_a_tensor_within_its_storage_is_read(path, offset, size, stride):
    with_view(path, offset, size, stride)
    assert torch.equal(read(path), torch.arange(6.0).as_strided(size, stride, offset))


def test_a_dtype_that_is_not_read_is_named(path):
    torch.save({"w": torch.ones(2, dtype=torch.complex64)}, path)
    assert line_of(path) == (
        "tensor w is stored as torch.ComplexFloatStorage, which is not read; convert it to float32 and save it again"
    )
    torch.save({"w": torch.ones(2, dtype=torch.uint16)}, path)
    assert "tensor w is stored as torch.uint16, which is not read" in line_of(path)


def test_what_is_no_tensor_is_named(saved):
    assert line_of(saved, "list") == "list is no tensor that can be read"


def test_an_attack_in_a_file_runs_nothing(path, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f"echo > {tmp_path / 'mark'}",)

    torch.save({"state_dict": Attack(), "w": torch.ones(2)}, path)
    assert torch.equal(read(path), torch.ones(2))
    assert not (tmp_path / "mark").exists()
    torch.load(io.BytesIO(path.read_bytes()), weights_only=False)
    assert (tmp_path / "mark").exists()
