"""Tensors of a file that `torch.save` or `torch.jit.save` wrote, without running any of it.

Both write a zip: the bytes of tensors lie in it as they are, and a pickle says which of them are
which tensor. A pickle is a program. Unpickled, even under a list of what is allowed, it calls what
it names; here its instructions are read instead, as text is, by a machine that has no way to call
anything: what it cannot read as lists, mappings, texts, numbers and tensors, it refuses by name.
TorchScript's code is never opened.

Nothing is unpacked: parts that are compressed are refused, and tensors stay in the file, mapped
into memory, until they are used.
"""

from __future__ import annotations

import io
import math
import mmap
import pickletools
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

MAX_PICKLE, MAX_STEPS = 32_000_000, 2_000_000
"""Bytes and instructions; a checkpoint of a thousand weights with its optimizer has a tenth."""
MAX_DIRECTORY = 8_000_000
"""Bytes of the zip's list of parts."""
MAX_AXES, MAX_KEY = 8, 200
TIMES = 4
"""Bytes of all tensors, in those of the file: weights may be tied, and no more."""
COPY = mmap.ACCESS_COPY
LOCAL = struct.Struct("<26xHH")
"""Of a part's own header in a zip: the lengths of its name and of what follows it."""

STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.DoubleStorage": torch.float64,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
CALLED = {
    *("collections.OrderedDict", "torch.Size"),
    *("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"),
}
LISTS = {f"torch.jit._pickle.build_{kind}list" for kind in ("int", "double", "bool", "tensor")}
CALLED |= {*LISTS, "torch.jit._pickle.restore_type_tag"}
"""What torch has called to make mappings, lists and tensors; here each is followed by its name."""
MODULES = "__torch__."
"""How TorchScript names classes of modules."""
PLAIN = "tensors, mappings, lists, texts and numbers alone"

CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
PUSHED = {*CONSTANTS, "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BINFLOAT"}
PUSHED |= {"FLOAT", "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4"}
"""Instructions that put a value onto the stack, their own or the one they carry."""
IGNORED = {"PROTO", "FRAME"}

T = TypeVar("T")


class Unreadable(Exception):
    """Why a file is not read: what was expected of it, and what it is or holds."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"expected {expected}, got {got}")
        self.expected, self.got = expected, got


@dataclass(frozen=True)
class Named:
    """A class or function that the pickle names: a text and nothing else."""

    name: str


@dataclass(frozen=True)
class Storage:
    """The bytes of one or more tensors, by the name of their part of the zip."""

    dtype: torch.dtype
    part: str


class Module(dict[str, Any]):
    """A module of TorchScript: its attributes, parameters and modules among them."""


def read_archive(path: Path) -> Any:
    """The content of a file: mappings, lists, texts, numbers, None, and tensors mapped into memory.

    Raises:
        Unreadable: another kind of file, one with anything else in its pickle, or one that asks
            for more than it holds.
        OSError: as `open` raises it.
    """
    with _Small(path) as file:
        head = io.FileIO.read(file, 4)
        if head != b"PK\x03\x04":
            raise Unreadable("a zip, as torch.save writes since version 1.6", _what(head))
        try:
            parts = _Parts(zipfile.ZipFile(file), mmap.mmap(file.fileno(), 0, access=COPY))
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise Unreadable("a whole zip", str(error)[:160]) from None
    pickles = [name for name in parts.names if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Unreadable("one pickle, data.pkl, in the zip", f"{len(pickles)} of them")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in parts.names and parts.read(f"{folder}byteorder") != b"little":
        raise Unreadable("numbers with their lowest byte first", "another order")
    try:
        return _Reader(parts, folder).read(parts.read(pickles[0]))
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        # Whatever an instruction met that no writer of torch's leaves it.
        got = f"a damaged one ({' '.join(str(error).split())[:120]})"
        raise Unreadable("a pickle as torch writes it", got) from None


def _what(head: bytes) -> str:
    if head[:1] == b"\x80":
        return "a pickle without one, as pickle.dump or torch before 1.6 writes it"
    return "neither a zip nor a pickle"


class _Small(io.FileIO):
    """A file of which the directory of a zip is read only if it is small."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY:
            raise ValueError(f"a directory of {size:,} bytes")
        return super().read(-1 if size is None else size) or b""


class _Parts:
    """The parts of a zip, in the place where they lie in the file."""

    def __init__(self, archive: zipfile.ZipFile, mapped: mmap.mmap) -> None:
        self.mapped = mapped
        self.names = {info.filename: info for info in archive.infolist()}

    def place(self, name: str) -> tuple[int, int]:
        """Where a part begins and ends."""
        info = self.names[name]
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise Unreadable("parts as torch stores them", f"{name[:80]!r} compressed or encrypted")
        begin = info.header_offset
        header = self.mapped[begin : begin + LOCAL.size]
        if begin >= 0 and header.startswith(b"PK\x03\x04") and len(header) == LOCAL.size:
            start = begin + LOCAL.size + sum(LOCAL.unpack(header))
            if (stop := start + info.file_size) <= len(self.mapped):
                return start, stop
        raise Unreadable("a whole zip", f"one cut short in {name[:80]!r}")

    def read(self, name: str) -> bytes:
        start, stop = self.place(name)
        if stop - start > MAX_PICKLE:
            expected = f"at most {MAX_PICKLE:,} bytes in {name[:80]!r}"
            raise Unreadable(expected, f"{stop - start:,}")
        return self.mapped[start:stop]


class _Reader:
    """The instructions of a pickle, as what they would leave on their stack.

    A list of values, the lists that a mark has set aside, and what has been numbered for later.
    """

    def __init__(self, parts: _Parts, folder: str) -> None:
        self.parts, self.folder = parts, folder
        self.stack: list[Any] = []
        self.aside: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.bytes_left = TIMES * len(parts.mapped)

    def read(self, pickled: bytes) -> Any:
        for step, (opcode, arg, _) in enumerate(pickletools.genops(io.BytesIO(pickled))):
            if step >= MAX_STEPS:
                raise Unreadable(f"a pickle of at most {MAX_STEPS:,} instructions", "a longer one")
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in PUSHED:
                self.stack.append(CONSTANTS.get(name, arg))
            elif name not in IGNORED:
                self._do(name, arg)
        raise ValueError("no end")

    def _do(self, name: str, arg: Any) -> None:
        stack = self.stack
        match name:
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "MARK":
                self.aside.append(stack)
                self.stack = []
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self.memo[int(arg)] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(self.memo[int(arg)])
            case "TUPLE":
                whole = tuple(self._since_mark())
                self.stack.append(whole)
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(name[-1])
                stack[-n:] = [(*stack[-n:],)]
            case "APPEND" | "APPENDS":
                values = [stack.pop()] if name == "APPEND" else self._since_mark()
                _of(list, self.stack[-1]).extend(values)
            case "SETITEM" | "SETITEMS":
                pairs = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self._since_mark()
                _set(self.stack[-1], zip(pairs[::2], pairs[1::2], strict=True))
            case "GLOBAL":
                stack.append(_named(str(arg).replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                own, module = stack.pop(), stack.pop()
                stack.append(_named(f"{_of(str, module)}.{_of(str, own)}"))
            case "REDUCE" | "NEWOBJ":
                args, called = stack.pop(), stack.pop()
                stack.append(self._made(_of(Named, called).name, _of(tuple, args)))
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], Module):  # of a mapping it is what belongs to no tensor
                    _set(stack[-1], _of(dict, state).items())
            case "BINPERSID":
                stack.append(self._storage(*stack.pop()))
            case _:
                raise Unreadable(PLAIN, f"the instruction {name}")

    def _since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.aside.pop()
        return values

    def _made(self, name: str, args: tuple[Any, ...]) -> Any:
        if name.startswith(MODULES):
            return Module()
        if name == "collections.OrderedDict":
            made: dict[Any, Any] = {}
            _set(made, (_of(tuple, pair) for pair in (args[0] if args else ())))
            return made
        if name == "torch.Size":
            return _of(tuple, args[0])
        if name.startswith("torch.jit._pickle."):
            return args[0]  # a list as TorchScript types it, or a value with a word on its type
        if name == "torch._utils._rebuild_parameter":
            return _of(Tensor, args[0])
        if name == "torch._utils._rebuild_tensor_v2":
            return self._tensor(*args[:4])
        raise Unreadable(PLAIN, f"a call of {name[:80]}")

    def _storage(self, kind: Any, dtype: Any, key: Any, location: Any, numel: Any) -> Storage:
        if kind != "storage":
            raise ValueError("a reference to something else than a storage")
        return Storage(STORAGES[_of(Named, dtype).name], f"{self.folder}data/{_of(str, key)}")

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
        """A view of the mapped bytes, all of whose numbers lie in its storage."""
        dtype = _of(Storage, storage).dtype
        start, stop = self.parts.place(storage.part)
        numbers = (offset, *_of(tuple, size), *_of(tuple, stride))
        if len(size) != len(stride) or len(size) > MAX_AXES:
            raise ValueError("a tensor with other axes than strides, or too many")
        if not all(type(number) is int and 0 <= number < 2**48 for number in numbers):
            raise ValueError("a tensor whose sizes are no whole numbers")
        held, asked = (stop - start) // dtype.itemsize, math.prod(size)
        last = offset + sum((n - 1) * by for n, by in zip(size, stride, strict=True))
        self.bytes_left -= asked * dtype.itemsize
        if (asked and (last >= held or asked > held)) or self.bytes_left < 0:
            raise Unreadable("tensors within their bytes", f"{asked:,} numbers in {held:,}")
        if not asked:
            return torch.empty(size, dtype=dtype)
        whole = torch.frombuffer(self.parts.mapped, dtype=dtype, count=held, offset=start)
        return whole.as_strided(size, stride, offset)


def _named(name: str) -> Named:
    if name in STORAGES or name in CALLED or name.startswith(MODULES):
        return Named(name)
    raise Unreadable(PLAIN, f"{name[:80]}, which would be imported and called to read it")


def _set(mapping: Any, pairs: Iterable[Any]) -> None:
    for key, value in pairs:
        # No key computes its hash from what it holds, and none makes many long names.
        if type(key) not in (str, int) or len(str(key)) > MAX_KEY:
            raise Unreadable(f"keys of at most {MAX_KEY} letters", f"a {type(key).__name__}")
        _of(dict, mapping)[key] = value


def _of(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} in the place of {kind.__name__}")
    return value
