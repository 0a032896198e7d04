"""Reads a pickle without running it: plain values come out, and an inert stand-in for everything else.

A pickle is a program that may name any function and call it. Here no name is ever imported: the few that a file of
weights needs stand for classes of this module, every other one for a new subclass of :class:`Inert`. All that a pickle
can call is therefore such a class. Each has ``__setstate__`` and no ``__dict__``, so a pickle can change neither what
the class does nor how an instance is read later.
"""

import io
import math
import pickle
import pickletools
import re
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np

LARGEST = 16 << 20
"""Bytes of a pickle that are read. Names and settings of a network take some 100 KB; its weights stand elsewhere."""
DEEPEST = 100
"""Levels of nesting. Python's hash of a tuple recurses without a limit of its own, and so could crash."""
_NAMES, _AXES = 10_000, 16
_EXTENSIONS = ("EXT1", "EXT2", "EXT4")
_IN_PLACE = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_GETS = ("GET", "BINGET", "LONG_BINGET")


class Inert:
    """Stands for an object of a foreign class: keeps what the object was made from and does nothing.

    Attributes:
        path: name of the foreign class (or function), of the class.
        args: arguments that it was made with.
        state: what was to be restored into it, or None.
    """

    __slots__ = ("args", "state")
    path: ClassVar[str] = ""
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any, **_: Any) -> "Inert":
        """Keep the arguments; subclasses that know their function return what it would."""
        self = object.__new__(cls)
        self.args, self.state = args, None
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *args: Any, **_: Any) -> "Inert":
        """Return another stand-in: what a foreign function that was looked up on an object would return."""
        return Inert(*args)

    def _ignore(self, *_: Any) -> None: ...

    # What a pickle fills a foreign list, set or mapping with.
    append = extend = add = __setitem__ = _ignore


class Storage(NamedTuple):
    """Numbers in a file of their own beside the pickle.

    Attributes:
        kind: name of its torch class, as ``torch.FloatStorage``.
        key: name of its file.
        numel: its elements (bytes, if the class is untyped).
    """

    kind: str
    key: str
    numel: int


class StoredTensor(NamedTuple):
    """A view of a storage; nothing of it is checked against the storage yet.

    Attributes:
        storage: what it views.
        offset, size, stride: in elements.
        dtype: name of its torch dtype, or None: the storage's.
    """

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str | None


class _Tensor(Inert):
    """``torch._utils._rebuild_tensor``, ``_v2`` and ``_v3``; the last one names the dtype."""

    __slots__ = ()

    def __new__(cls, *args: Any, **_: Any) -> Any:
        storage, offset, size, stride, *rest = args
        numbers = [offset, *size, *stride]
        if (
            not isinstance(storage, Storage)
            or not all(type(number) is int and 0 <= number < 2**63 for number in numbers)
            or len(size) != len(stride)
            or len(size) > _AXES
            or math.prod(number or 1 for number in size) >= 2**63
        ):
            raise ValueError("a tensor whose storage, offset, size or stride is not one")
        dtype = rest[2] if len(rest) > 2 else None
        return StoredTensor(storage, offset, tuple(size), tuple(stride), None if dtype is None else _path(dtype))


class _Parameter(Inert):
    """``torch._utils._rebuild_parameter``: the tensor in it."""

    __slots__ = ()

    def __new__(cls, *args: Any, **_: Any) -> Any:
        return args[0]


class _Mapping(dict[Any, Any]):
    """``collections.OrderedDict``; attributes that a state dictionary carries are dropped."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None: ...


class _Encoded(Inert):
    """``_codecs.encode``, by which older protocols write bytes."""

    __slots__ = ()

    def __new__(cls, *args: Any, **_: Any) -> Any:
        text, codec = args
        if not isinstance(text, str) or codec != "latin1":
            raise ValueError("bytes in an unknown encoding")
        return text.encode("latin1")


class _Scalar(Inert):
    """``numpy.core.multiarray.scalar``: a Python number of its value."""

    __slots__ = ()

    def __new__(cls, *args: Any, **_: Any) -> Any:
        dtype, raw = args
        code, order = dtype.args[0], dtype.state[1]
        if not re.fullmatch(r"[fiu][1248]|b1", code) or order not in ("<", ">", "|", "=") or type(raw) is not bytes:
            raise ValueError("a numpy scalar that is no number")
        return np.frombuffer(raw, np.dtype(order + code), count=1)[0].item()


_KNOWN: dict[tuple[str, str], type] = {
    ("collections", "OrderedDict"): _Mapping,
    ("torch._utils", "_rebuild_tensor"): _Tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("numpy.core.multiarray", "scalar"): _Scalar,
    ("numpy._core.multiarray", "scalar"): _Scalar,
    ("_codecs", "encode"): _Encoded,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._stubs: dict[tuple[str, str], type] = {}

    def find_class(self, module: str, name: str) -> type:
        known = _KNOWN.get((module, name)) or self._stubs.get((module, name))
        if known is None:
            if len(self._stubs) >= _NAMES:
                raise ValueError(f"more than {_NAMES} names of foreign classes")
            known = self._stubs[module, name] = type("Inert", (Inert,), {"__slots__": (), "path": f"{module}.{name}"})
        return known

    def persistent_load(self, pid: Any) -> Storage:
        word, kind, key, _, numel = pid
        numbered = type(key) is str and re.fullmatch(r"\w{1,20}", key)
        if word != "storage" or not numbered or type(numel) is not int or numel < 0:
            raise ValueError("a reference to something that is no storage")
        return Storage(_path(kind), key, numel)


def loads(data: bytes) -> Any:
    """Return what a pickle holds; nothing in it is run or imported.

    Dictionaries, lists, tuples, texts and numbers come as such, tensors as :class:`StoredTensor`, all else as
    :class:`Inert`.

    Raises:
        ValueError: it is damaged, larger than ``LARGEST``, nested deeper than ``DEEPEST``, or refers to what only a
            running program can give.
    """
    if len(data) > LARGEST:
        raise ValueError(f"{len(data)} bytes, more than the {LARGEST} that are read")
    try:
        _check(data)
        return _Unpickler(data).load()
    # Whatever a malformed program makes the machine that reads it raise.
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(said[:200]) from None


def _path(kind: Any) -> str:
    if not (isinstance(kind, type) and issubclass(kind, Inert) and kind.path.isprintable()):
        raise ValueError("a type is needed where none stands")
    return kind.path


def _check(data: bytes) -> None:
    """Refuse what the unpickler would take from the process or recurse into, by following the depth of all values."""
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[int, int] = {}
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name in _EXTENSIONS:
            raise ValueError("an extension code, which means something to one program only")
        if name in _PUTS:
            place = len(memo) if name == "MEMOIZE" else cast(int, argument)
            if place > len(data):
                raise ValueError(f"a memo of {place} values in {len(data)} bytes")
            memo[place] = stack[-1]
        elif name in _GETS:
            stack.append(memo[cast(int, argument)])
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "POP" and marks and marks[-1] == len(stack):
            marks.pop()
        else:
            taken = _taken(opcode.stack_before, stack, marks)
            depth = 1 + max(taken) if taken else 0
            if name in _IN_PLACE:
                depth = max(taken[0], 1 + max(taken[1:], default=-1))
            if opcode.stack_after and depth > DEEPEST:
                raise ValueError(f"values nested more than {DEEPEST} levels deep")
            stack += [depth] * len(opcode.stack_after)


def _taken(before: Sequence[pickletools.StackObject], stack: list[int], marks: list[int]) -> list[int]:
    """Remove from the stack what an opcode takes; return the depths, the lowest first."""
    start = len(stack) - len(before)
    if pickletools.markobject in before:
        start = marks.pop() - list(before).index(pickletools.markobject)
    if start < 0:
        raise ValueError("it takes more values than it has")
    values = stack[start:]
    del stack[start:]
    return values
