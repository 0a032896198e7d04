"""A pickle is read without being run: what comes out is plain, and no attack does anything."""

import copyreg
import io
import os
import pickle
import pickletools
import subprocess
import sys
import zipfile
from collections import OrderedDict
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckd.stages.teachers.inert import DEEPEST, LARGEST, Inert, StoredTensor, loads


def reduced(function, *args):
    """An object whose pickle says: call this function."""

    class Reduced:
        def __reduce__(self):
            return function, args

    return Reduced()


def call(*parts):
    """A pickle, written by hand: text parts are opcodes as they stand, for a reader of protocol 0."""
    return b"".join(part if isinstance(part, bytes) else part.encode() for part in parts) + b"."


# Each makes a file when a common reader loads it.
ATTACKS = {
    "os.system": lambda run, _: pickle.dumps(reduced(os.system, run)),
    **{
        f"os.system, protocol {protocol}": lambda run, _, protocol=protocol: pickle.dumps(
            {"state_dict": reduced(os.system, run)}, protocol
        )
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "eval": lambda _, code: pickle.dumps([reduced(eval, code)]),
    "exec": lambda _, code: pickle.dumps((1, reduced(exec, code))),
    "in a dictionary's key": lambda run, _: pickle.dumps({reduced(os.system, run): 1}),
    "in arguments of something harmless": lambda run, _: pickle.dumps(
        reduced(OrderedDict, [("a", reduced(os.system, run))])
    ),
    "as an instance of a class": lambda run, _: call(f"(S'{run}'\nios\nsystem\n"),
    "as an object": lambda run, _: call("(cos\nsystem\n", f"S'{run}'\no"),
    "a name inside a name": lambda run, _: call(
        b"\x80\x04\x8c\x0asubprocess\x8c\x09os.system\x93", b"\x8c", bytes([len(run)]), run, b"\x85R"
    ),
    "looked up by getattr": lambda run, _: call(
        "c__builtin__\ngetattr\n(cimportlib\nimport_module\n(S'os'\ntRS'system'\ntR", f"(S'{run}'\ntR"
    ),
    "a process by keyword": lambda run, _: pickle.dumps(reduced(partial(subprocess.call, run, shell=True))),
    "through a torch function": lambda run, _: pickle.dumps(
        reduced(torch._utils._rebuild_parameter, reduced(os.system, run), False, {})
    ),
    "by map over arguments": lambda run, _: pickle.dumps(reduced(list, reduced(map, os.system, [run]))),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_runs_nothing(name, tmp_path):
    """Read as usual it does run, or this test could not fail."""
    for reader, expected, errors in (
        (pickle.loads, True, (ValueError, TypeError, AttributeError)),
        (loads, False, (ValueError,)),
    ):
        mark = tmp_path / reader.__module__
        data = ATTACKS[name](f"echo > {mark}", f"open({str(mark)!r}, 'w').close()")
        with suppress(*errors):
            reader(data)
        assert mark.exists() == expected


def test_no_module_is_imported():
    data = b"cthis\ns\n."
    assert isinstance(loads(data), type)
    assert loads(data).path == "this.s"
    assert "this" not in sys.modules


def test_an_extension_code_is_not_looked_up(tmp_path):
    """It would be found in a table of this process, not by name."""
    mark = tmp_path / "mark"
    copyreg.add_extension(os.system.__module__, "system", 0xF0)
    try:
        data = pickle.dumps(reduced(os.system, f"echo > {mark}"), 2)
        assert "EXT1" in {opcode.name for opcode, _, _ in pickletools.genops(data)}
        with pytest.raises(ValueError, match="an extension code"):
            loads(data)
        assert not mark.exists()
    finally:
        copyreg.remove_extension(os.system.__module__, "system", 0xF0)


BUILT = {
    "a function": "ctorch._utils\n_rebuild_tensor_v2\n",
    "a mapping's class": "ccollections\nOrderedDict\n",
    "a foreign class": "cforeign\nClass\n",
    "the encoder of bytes": "c_codecs\nencode\n",
}


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("state", ["(dS'__init__'\nS'x'\ns", "(N(dS'path'\nI1\nsS'__new__'\nI2\nst"])
def test_a_state_for_a_class_changes_no_class(name, state):
    before = loads(pickle.dumps(OrderedDict(a=1)))
    with pytest.raises(ValueError, match="argument"):
        loads(call(BUILT[name], state, "b"))
    assert loads(pickle.dumps(OrderedDict(a=1))) == before
    assert (
        loads(call(BUILT[name], "(tR" if "codecs" not in BUILT[name] and "torch" not in BUILT[name] else ""))
        is not None
    )


def test_a_state_hides_no_method_of_a_mapping():
    """A state dictionary's own attributes go this way."""
    given_ = OrderedDict(a=1)
    given_.get = given_._metadata = "hidden"
    assert pickle.loads(pickle.dumps(given_)).get == "hidden"
    found = loads(pickle.dumps(given_))
    assert found.get("a") == 1
    assert isinstance(found, dict)


def test_an_object_of_a_foreign_class_keeps_what_it_was_made_from():
    data = call("cforeign.module\nClass\n(I1\nS'a'\ntR", "(dS'__class__'\nI3\nsS'x'\nI4\nsb")
    found = loads(data)
    assert isinstance(found, Inert)
    assert (found.path, found.args, found.state) == ("foreign.module.Class", (1, "a"), {"__class__": 3, "x": 4})


def test_what_a_foreign_container_is_filled_with_is_dropped():
    for filled in ("(I1\nI2\ne", "I1\na", "I1\nI2\ns", "(I1\nI2\nu"):
        assert isinstance(loads(call("cforeign\nBag\n(tR", filled)), Inert)


def test_an_object_as_a_key_is_a_key():
    found = loads(call("(dcforeign\nKey\n(tR(dS'__hash__'\nI1\nsS'__eq__'\nI2\nsbS'value'\nsS'config'\nI1\ns"))
    assert found["config"] == 1
    assert "value" in found.values()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("number", [np.float64(0.1), np.float32(0.1), np.int64(-7), np.uint8(200), np.bool_(True)])
def test_a_numpy_number_is_a_python_number(number, protocol):
    found = loads(pickle.dumps({"best": number}, protocol))["best"]
    assert found == number.item()
    assert type(found) is type(number.item())


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda inner: (
            st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner) | st.frozensets(st.integers())
        ),
        max_leaves=20,
    ),
    st.integers(3, pickle.HIGHEST_PROTOCOL),
)
def test_plain_values_come_as_they_are(value, protocol):
    assert loads(pickle.dumps(value, protocol)) == value or protocol < 4


# --- what is refused


def refused(data):
    with pytest.raises(ValueError) as caught:
        loads(data)
    (line,) = str(caught.value).splitlines()
    return line


def test_the_hash_of_tuples_in_tuples_does_not_end_the_process():
    depth = 1_000_000
    said = refused(b"}(" + b")" + b"\x85" * depth + b"Nu.")
    assert said == f"values nested more than {DEEPEST} levels deep"
    assert loads(b")" + b"\x85" * DEEPEST + b".")


def test_lists_in_lists_are_refused_when_they_are_too_deep():
    assert "levels deep" in refused(b"]" * 5_000 + b"a" * 4_999 + b".")


def test_many_values_of_a_list_are_not_deep():
    values = list(range(100_000))
    assert loads(pickle.dumps(values)) == values


def test_a_memo_of_more_places_than_the_file_has_bytes_is_refused():
    assert "a memo of 2147483647 values in" in refused(b"Nr\xff\xff\xff\x7f.")


def test_an_endless_file_is_refused():
    assert str(LARGEST) in refused(b"N0" * (LARGEST // 2 + 1) + b"N.")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"N",
        b"0.",
        b"(.",
        b"e.",
        b"\x85.",
        b"h\x05.",
        b"\x80\xff.",
        b"not a pickle",
        b"cforeign\nName\nI1\nR.",
        b"I1\n(tR.",
        b"Pname\n.",
        b"\x97.",
        b"K\x01Q.",
        call("(S'storage'\nI1\nS'0'\nS'cpu'\nI4\ntQ"),
        call("(S'storage'\nctorch\nFloatStorage\nS'../0'\nS'cpu'\nI4\ntQ"),
        call("(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI-4\ntQ"),
        call("ctorch._utils\n_rebuild_tensor_v2\n(I1\nI0\n(t(ttR"),
        call("c_codecs\nencode\n(S'a'\nS'hex'\ntR"),
        call("cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\ntR(I3\nS'|'\ntbS'12345678'\ntR"),
    ],
)
def test_a_malformed_pickle_is_answered_with_one_line(data):
    assert refused(data)


IMPOSSIBLE = {
    "offset": "I-1\n(I2\nt(I1\nt",
    "size": "I0\n(I-2\nt(I1\nt",
    "stride": "I0\n(I2\nt(I-1\nt",
    "one size for two strides": "I0\n(I2\nt(I1\nI1\nt",
    "no number": "S'0'\n(I2\nt(I1\nt",
    "seventeen axes": "I0\n(" + "I1\n" * 17 + "t(" + "I1\n" * 17 + "t",
    "more elements than can be counted": f"I0\n(I{2**40}\nI{2**40}\nt(I0\nI0\nt",
}


@pytest.mark.parametrize("view", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_tensor_of_an_impossible_view_is_refused(view):
    storage = "(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI4\ntQ"
    assert isinstance(loads(call("ctorch._utils\n_rebuild_tensor_v2\n(", storage, "I0\n(I2\nt(I1\nttR")), StoredTensor)
    assert refused(call("ctorch._utils\n_rebuild_tensor_v2\n(", storage, view, "tR"))


def real_pickle():
    file = io.BytesIO()
    torch.save({"state_dict": OrderedDict(w=torch.ones(2, 3)), "best": np.float64(0.5), "of": [1, (2, None)]}, file)
    with zipfile.ZipFile(file) as archive:
        return archive.read("archive/data.pkl")


@given(st.data())
def test_damage_anywhere_gives_a_value_or_one_line(data):
    damaged = bytearray(real_pickle())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        loads(bytes(damaged))
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
