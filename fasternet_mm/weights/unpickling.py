"""The pickles in PyTorch's checkpoints, read operation by operation: tensors and plain Python come out, or nothing.

Python's ``pickle`` calls whatever a file names, and before PyTorch 2.10 ``torch.load(weights_only=True)`` could be
made to write over memory (CVE-2026-24747). Here a name is only a name: it is looked up in the tables below, and each
function in them checks what it is given. An operation, a name or a kind of value that a checkpoint does not need ends
the reading, with every version of PyTorch alike.

What comes from the file is neither printed, hashed nor unpacked before its type is known: a tuple of the same tuple
twice, sixty deep, takes little room, and forever to walk through. A limit on copies is set by the size of the file: a
pickle can name one long list ten thousand times.
"""

from __future__ import annotations

import argparse
import math
import pickletools
import re
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn


class UnsafePickle(Exception):
    """A pickle asks for something that a checkpoint does not need; the message is its name."""


@dataclass(frozen=True)
class Name:
    """A function or class that a pickle names, as 'module.name'."""

    name: str


@dataclass(frozen=True)
class Storage:
    """The memory that tensors are views of; ``dtype`` is None where only the tensors know it."""

    bytes: torch.UntypedStorage
    dtype: torch.dtype | None


LoadBytes = Callable[[str, int, int], torch.UntypedStorage]

MAX_DIMENSIONS = 64
"""The most dimensions of a tensor or array, as in NumPy 2: the product of very many lengths would take very long."""

MAX_COPIES = 4
"""How often each byte of the file may be copied; a history is copied three times: to bytes, to an array, to itself."""

MAX_NAME = 120
"""How many characters of a refused name the message shows."""

MAX_KEY = 2**60
"""Integer keys are below it, so that each has its own hash; a dict of a million equal hashes would take days."""

PLAIN = str, int, float, bytes, type(None)
"""The types of keys in checkpoints."""


def unpickle(file: BinaryIO, load_bytes: LoadBytes | None = None) -> Any:
    """Read one pickle, up to its end.

    Args:
        file: open for reading, at the pickle's beginning.
        load_bytes: gives the storage of a key, exactly so many numbers of so many bytes, or raises `ValueError`.
            Default: there are no tensors.

    Raises:
        UnsafePickle: it asks for more than tensors, plain Python, NumPy's numbers and MMEngine's histories.
        Exception: of any type: it is malformed.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    copied = 0

    def since_mark() -> list[Any]:
        mark = marks.pop()
        items = stack[mark:]
        del stack[mark:]
        return items

    def expect_copies(parts: Any) -> None:
        nonlocal copied
        copied += _length(parts)
        if copied > MAX_COPIES * file.tell():
            raise ValueError('the pickle copies much more than the file holds')

    for operation, argument, _ in pickletools.genops(file):
        match operation.name:
            case 'NONE' | 'BININT' | 'BININT1' | 'BININT2' | 'LONG1' | 'BINFLOAT' | 'BINUNICODE' | 'SHORT_BINSTRING':
                stack.append(argument)
            case 'NEWTRUE' | 'NEWFALSE':
                stack.append(operation.name == 'NEWTRUE')
            case 'EMPTY_TUPLE':
                stack.append(())
            case 'EMPTY_LIST':
                stack.append([])
            case 'EMPTY_DICT':
                stack.append({})
            case 'MARK':
                marks.append(len(stack))
            case 'TUPLE':
                stack.append(tuple(since_mark()))
            case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
                length = int(operation.name[-1])
                stack[-length:] = [tuple(stack[-length:])]
            case 'APPEND':
                _extend([stack.pop()], stack[-1])
            case 'APPENDS':
                _extend(since_mark(), stack[-1])
            case 'SETITEM':
                value, key = stack.pop(), stack.pop()
                _set_items([key, value], stack[-1])
            case 'SETITEMS':
                _set_items(since_mark(), stack[-1])
            case 'BINPUT' | 'LONG_BINPUT':
                memo[argument] = stack[-1]
            case 'BINGET' | 'LONG_BINGET':
                stack.append(memo[argument])
            case 'GLOBAL':
                stack.append(_look_up(argument))
            case 'REDUCE' | 'NEWOBJ':
                arguments, maker = stack.pop(), stack.pop()
                expect_copies(arguments)
                stack.append(_make(maker, arguments))
            case 'BUILD':
                state = stack.pop()
                expect_copies(state)
                _set_state(stack[-1], state)
            case 'BINPERSID':
                stack.append(_storage(stack.pop(), load_bytes))
            case 'PROTO':
                pass
            case 'STOP':
                return stack.pop()
            case other:
                raise UnsafePickle(f'the pickle operation {other}')
    raise EOFError


def _length(parts: Any) -> int:
    """How much a call with these arguments, or a state of these parts, may copy."""
    parts = parts.values() if type(parts) is dict else parts if type(parts) is tuple else ()
    sized = (str, bytes, list, tuple, dict)
    return len(parts) + sum(
        part.nbytes if isinstance(part, np.ndarray) else len(part) if isinstance(part, sized) else 0 for part in parts
    )


def _extend(items: list[Any], target: Any) -> None:
    if type(target) is not list:
        raise ValueError(f'items are appended to a {type(target).__name__}, not to a list')
    target.extend(items)


def _set_items(items: list[Any], target: Any) -> None:
    if type(target) not in (dict, OrderedDict, Counter):
        raise ValueError(f'items are set in a {type(target).__name__}, not in a dict')
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[_hashable(key)] = value


def _hashable(key: Any) -> Any:
    """A key of checkpoints, or a few in a tuple; to hash nested tuples could take forever."""
    for part in key if type(key) is tuple and len(key) <= MAX_DIMENSIONS else (key,):
        if not isinstance(part, PLAIN) or (isinstance(part, int) and abs(part) >= MAX_KEY):
            raise ValueError(f'a {type(part).__name__} cannot be a key here')
    return key


def _look_up(words: str) -> Any:
    module, _, name = words.partition(' ')
    # Python 2 had another name for its built-in module, NumPy 1 for its core.
    module = {'__builtin__': 'builtins', 'numpy._core.multiarray': 'numpy.core.multiarray'}.get(module, module)
    path = f'{module}.{name}'
    if path in VALUES:
        return VALUES[path]
    if path not in MAKERS:
        # It goes into a message, where a terminal would obey what is not printable.
        name = path.removeprefix('builtins.')[:MAX_NAME]
        raise UnsafePickle(name if name.isprintable() else ascii(name))
    return Name(path)


def _make(maker: Any, arguments: Any) -> Any:
    if not isinstance(maker, Name) or type(arguments) is not tuple:
        raise ValueError('the pickle calls something that is not a function')
    if maker.name not in MAKERS:
        raise UnsafePickle(maker.name)
    return MAKERS[maker.name](*arguments)


def _storage(identifier: Any, load_bytes: LoadBytes | None) -> Storage:
    if type(identifier) is not tuple:
        raise ValueError('a reference to a storage is not a tuple')
    kind, storage_type, key, _device, count, *view = identifier
    known = isinstance(storage_type, Name) and isinstance(key, str) and view in ([], [None])
    if kind != 'storage' or not known or load_bytes is None:
        raise ValueError('a reference to a storage is of an unknown kind')
    dtype = STORAGE_TYPES[storage_type.name]
    return Storage(load_bytes(key, *_natural((count,)), dtype.itemsize if dtype else 1), dtype)


def _tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, _grad: Any = 0, _hooks: Any = (), flags: Any = ()
) -> Tensor:
    return _tensor_of(storage, storage.dtype, offset, shape, stride, flags)


def _typed_tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, flags: Any = ()
) -> Tensor:
    return _tensor_of(storage, dtype, offset, shape, stride, flags)


def _tensor_of(storage: Any, dtype: Any, offset: Any, shape: Any, stride: Any, flags: Any) -> Tensor:
    """A tensor that lies within its storage."""
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype) or flags:
        raise ValueError('a tensor is of an unknown kind')
    (offset,), shape, stride = _natural((offset,)), _natural(shape), _natural(stride)
    last = offset + sum((length - 1) * step for length, step in zip(shape, stride, strict=True))
    end = offset if 0 in shape else last + 1
    if end * dtype.itemsize > storage.bytes.nbytes() or math.prod(shape) > sys.maxsize // dtype.itemsize:
        raise ValueError('a tensor reaches beyond what is stored')
    return torch.empty(0, dtype=dtype).set_(storage.bytes, offset, shape, stride)


def _natural(numbers: Any) -> tuple[int, ...]:
    if not isinstance(numbers, tuple) or len(numbers) > MAX_DIMENSIONS:
        raise ValueError('sizes are not a tuple, or too many')
    if not all(type(number) is int and 0 <= number < 2**60 for number in numbers):
        raise ValueError('a size is not an integer from 0 to 2**60')
    return tuple(numbers)


def _parameter(data: Any, requires_grad: Any, _hooks: Any = None) -> nn.Parameter:
    if not isinstance(data, Tensor):
        raise ValueError('a parameter is not a tensor')
    return nn.Parameter(data, bool(requires_grad))


def _ordered_dict() -> OrderedDict:
    return OrderedDict()


def _counter(counts: Any = ()) -> Counter:
    if not isinstance(counts, dict):
        raise ValueError('the counts of a Counter are not a dict')
    return Counter(counts)


def _set(items: Any = ()) -> set:
    if not isinstance(items, list):
        raise ValueError('the items of a set are not a list')
    return {_hashable(item) for item in items}


def _device(kind: Any, _index: Any = 0) -> str:
    """Where a tensor once was; nothing here goes there."""
    if not isinstance(kind, str):
        raise ValueError('the name of a device is not text')
    return kind


def _bytes(text: Any = '', encoding: Any = 'latin1') -> bytes:
    if not isinstance(text, str) or encoding != 'latin1':
        raise ValueError('bytes are in an unknown encoding')
    return text.encode('latin1')


def _dtype(code: Any, _align: Any = None, _copy: Any = None) -> np.dtype:
    """A NumPy type of numbers or text; one of objects would be of addresses."""
    if not isinstance(code, str) or not re.fullmatch(r'[biufc][1248]|c16|[SU][1-9]\d{0,5}', code):
        raise UnsafePickle('numpy.dtype of objects')
    return np.dtype(code)


def _scalar(dtype: Any, content: Any) -> np.generic:
    if not isinstance(dtype, np.dtype) or not isinstance(content, bytes) or len(content) != dtype.itemsize:
        raise ValueError('a NumPy number is malformed')
    return np.frombuffer(content, dtype)[0]


def _array(_kind: Any, _shape: Any, _code: Any) -> np.ndarray:
    """An empty array: its content comes as its state."""
    return np.empty(0, np.int8)


def _history_statistic(owner: Any, name: Any) -> str:
    """Stands for ``getattr``, by which MMEngine pickles a history's four statistics; a history here has its own."""
    if not isinstance(name, str):
        raise ValueError('the name of an attribute is not text')
    if owner != Name(HISTORY) or name not in ('min', 'max', 'current', 'mean'):
        raise UnsafePickle(f'getattr.{name[:40]}')
    return name


def _history() -> HistoryBuffer:
    """An empty history: its content comes as its state."""
    return HistoryBuffer()


def _namespace() -> argparse.Namespace:
    """The options of a command line, as timm's training keeps them: its content comes as its state."""
    return argparse.Namespace()


def _set_state(target: Any, state: Any) -> None:
    """The second half of an object that is made in two steps."""
    if type(target) is argparse.Namespace and type(state) is dict and all(type(key) is str for key in state):
        vars(target).update(state)
    elif type(target) is OrderedDict and type(state) is dict and state.keys() <= {'_metadata'}:
        metadata = state.get('_metadata')
        target._metadata = metadata if isinstance(metadata, dict) else {}
    elif isinstance(target, np.dtype) and type(state) is tuple and len(state) > 4:
        if state[1] not in ('|', '=', '<' if sys.byteorder == 'little' else '>') or any(state[2:5]):
            raise ValueError('numbers are in the other byte order')
    elif type(target) is np.ndarray and type(state) is tuple:
        _, shape, dtype, columns_first, content = state
        if not isinstance(dtype, np.dtype) or not isinstance(content, bytes):
            raise ValueError('an array is of an unknown kind')
        if len(content) != math.prod(_natural(shape)) * dtype.itemsize:
            raise ValueError('an array has a different size than its content')
        target.__setstate__((1, tuple(shape), dtype, bool(columns_first), content))
    elif type(target) is HistoryBuffer and type(state) is dict:
        values, counts = state['_log_history'], state['_count_history']
        if not all(isinstance(numbers, np.ndarray) and numbers.ndim == 1 for numbers in (values, counts)):
            raise ValueError('a history does not consist of numbers')
        target.__init__(values, counts, *_natural((state['max_length'],)))
    else:
        raise ValueError(f'a {type(target).__name__} is given a state')


HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'

STORAGE_TYPES: dict[str, torch.dtype | None] = {
    'torch.storage.UntypedStorage': None,
    'torch.DoubleStorage': torch.float64,
    'torch.FloatStorage': torch.float32,
    'torch.HalfStorage': torch.float16,
    'torch.BFloat16Storage': torch.bfloat16,
    'torch.LongStorage': torch.int64,
    'torch.IntStorage': torch.int32,
    'torch.ShortStorage': torch.int16,
    'torch.CharStorage': torch.int8,
    'torch.ByteStorage': torch.uint8,
    'torch.BoolStorage': torch.bool,
    'torch.ComplexFloatStorage': torch.complex64,
    'torch.ComplexDoubleStorage': torch.complex128,
}

VALUES: dict[str, Any] = {
    **{str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)},
    **{name: Name(name) for name in (*STORAGE_TYPES, 'numpy.ndarray')},
}
"""Names that a pickle may mention, and what each becomes."""

MAKERS: dict[str, Callable[..., Any]] = {
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_tensor_v3': _typed_tensor,
    'torch._utils._rebuild_parameter': _parameter,
    'torch.Size': _natural,
    'torch.device': _device,
    'collections.OrderedDict': _ordered_dict,
    'collections.Counter': _counter,
    'builtins.set': _set,
    'builtins.bytes': _bytes,
    '_codecs.encode': _bytes,
    'numpy.dtype': _dtype,
    'numpy.core.multiarray.scalar': _scalar,
    'numpy.core.multiarray._reconstruct': _array,
    'builtins.getattr': _history_statistic,
    HISTORY: _history,
    'argparse.Namespace': _namespace,
}
"""Functions that a pickle may call, and what is called here in their place."""
