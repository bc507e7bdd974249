"""Pickles written by hand, operation by operation, as no PyTorch would write them."""

import argparse
import io
import os
import pickle
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from fasternet_mm.errors import UserError
from fasternet_mm.weights.reading import read_file

FLOATS = torch.arange(4.0).numpy().tobytes()


def push(value):
    """The operations that put plain Python onto the stack."""
    return pickle.dumps(value, 2)[2:-1]


def named(module, name):
    return b'c' + f'{module}\n{name}\n'.encode()


def tuple_of(*parts):
    return b'(' + b''.join(parts) + b't'


def call(function, *arguments):
    return function + tuple_of(*arguments) + b'R'


def reference(count=4, key='0', kind='FloatStorage', what='storage'):
    return tuple_of(push(what), named('torch', kind), push(key), push('cpu'), push(count)) + b'Q'


HOOKS = call(named('collections', 'OrderedDict'))
REBUILD = named('torch._utils', '_rebuild_tensor_v2')


def tensor(offset=0, shape=(4,), stride=(1,), storage=None, flags=b''):
    rest = (push(offset), push(shape), push(stride), push(False), HOOKS, flags)
    return call(REBUILD, storage or reference(), *rest)


def array(shape, content, code='f8', order='<'):
    dtype = call(named('numpy', 'dtype'), push(code), push(False), push(True))
    dtype += tuple_of(push(3), push(order), push(None) * 3, push(-1) * 2, push(0)) + b'b'
    empty = call(named('numpy.core.multiarray', '_reconstruct'), named('numpy', 'ndarray'), push((0,)), push('b'))
    encoded = call(named('_codecs', 'encode'), push(content), push('latin1'))
    return empty + tuple_of(push(1), push(shape), dtype, push(False), encoded) + b'b'


def doubled(value=b']', times=80):
    """A tuple of a tuple of … twice each: little to store, and forever to print, compare or hash."""
    return value + b''.join(b'q%c' % n + b'h%c' % n + b'\x86' for n in range(times))


def file_of(value, records=None, byteorder='little'):
    """A PyTorch archive with one entry under the key 'x'."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        archive.writestr('net/data.pkl', b'\x80\x02}' + push('x') + value + b's.')
        archive.writestr('net/byteorder', byteorder)
        archive.writestr('net/version', '3\n')
        for key, content in ({'0': FLOATS} if records is None else records).items():
            archive.writestr(f'net/data/{key}', content)
    return buffer.getvalue()


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def read(content, mmap=False):
        (tmp_path / 'net.pth').write_bytes(content)
        return read_file(tmp_path / 'net.pth', 'net.pth', mmap)

    yield read
    assert os.listdir() == ['net.pth']


@pytest.mark.parametrize('mmap', [True, False])
def test_what_is_written_by_hand_reads_as_pytorch_reads_it(read, tmp_path, mmap):
    found = read(file_of(tensor(1, (2, 2), (0, 2))), mmap)['x']
    assert found.tolist() == [[1, 3], [1, 3]]
    assert torch.equal(found, torch.load(tmp_path / 'net.pth', weights_only=True)['x'])
    assert read(file_of(array((2,), '\0' * 16)))['x'].tolist() == [0, 0]


BROKEN = {
    # what corrupts memory in the unpickler of PyTorch before 2.10
    'an item set in a tensor': tensor() + push(0) + push(1.0) + b's',
    'items set in a tensor': tensor() + b'(' + push(0) + push(1.0) + b'u',
    'an item set in a list': push([1, 2]) + push(0) + push(9) + b's',
    'an item set in bytes': call(named('_codecs', 'encode'), push('abc'), push('latin1')) + push(0) + push(9) + b's',
    'an item set in a function': named('collections', 'OrderedDict') + push('__module__') + push(9) + b's',
    'an item set in an array': array((2,), '\0' * 16) + push(0) + push(1.0) + b's',
    'a key without its value': push({}) + b'(' + push(1) + b'u',
    'an item for a tuple': push((1,)) + push(2) + b'a',
    'items for a dict': push({}) + b'(' + push(2) + b'e',
    'a state for a tensor': tensor() + tuple_of(reference(), push(0), push((400,)), push((1,))) + b'b',
    'a state for a dict': push({}) + push(dict(keys=3)) + b'b',
    'a state for a function': REBUILD + tuple_of(push(None), push(dict(__defaults__=(1,)))) + b'b',
    'attributes for an OrderedDict': HOOKS + push(dict(keys=3)) + b'b',
    # storages
    'a storage larger than its record': tensor(storage=reference(5)),
    'a storage smaller than its record': tensor(shape=(2,), storage=reference(2)),
    'a storage of another type than its record': tensor(storage=reference(4, kind='DoubleStorage')),
    'a storage that is read twice in two sizes': tuple_of(tensor(), tensor(shape=(8,), storage=reference(8))),
    'a storage without a record': tensor(storage=reference(key='1')),
    'a storage of negative size': tensor(storage=reference(-4)),
    'a storage of a fraction': tensor(storage=reference(4.0)),
    'a reference to something else': tensor(storage=reference(what='module')),
    'a reference that is no tuple': push('storage') + b'Q',
    'a storage that is none': tensor(storage=push(3)),
    # tensors
    'an offset beyond the storage': tensor(offset=1),
    'an offset beyond the storage of nothing': tensor(offset=5, shape=(0,)),
    'a negative offset': tensor(offset=-1),
    'a shape beyond the storage': tensor(shape=(5,)),
    'a stride beyond the storage': tensor(shape=(2,), stride=(4,)),
    'a negative stride': tensor(offset=3, stride=(-1,)),
    'a negative shape': tensor(shape=(-4,)),
    'more strides than lengths': tensor(stride=(1, 1)),
    'more dimensions than there can be': tensor(shape=(1,) * 65, stride=(1,) * 65),
    'more numbers than there can be': tensor(shape=(2**40, 2**40), stride=(0, 0)),
    'a length beyond 64 bits': tensor(shape=(2**70,), stride=(0,)),
    'a conjugate': tensor(flags=push(dict(conj=True))),
    # NumPy
    'an array that is longer than its content': array((3,), '\0' * 16),
    'an array of negative length': array((-1, -2), '\0' * 16),
    'an array of the other byte order': array((2,), '\0' * 16, order='>'),
    # what is no program
    'a call of no function': push(3) + b')R',
    'a call of a number type': named('torch', 'float32') + b')R',
    'arguments that are no tuple': named('collections', 'OrderedDict') + b']R',
    'too little on the stack': b'aaaa',
    'a memory that was never filled': b'h\x07',
    'an item without a mark': b'u',
}


@pytest.mark.parametrize('what', BROKEN)
@pytest.mark.parametrize('mmap', [True, False])
def test_a_pickle_that_pytorch_never_writes_is_broken(read, what, mmap):
    with pytest.raises(UserError, match=r'net.pth is broken, or not a PyTorch checkpoint'):
        read(file_of(BROKEN[what]), mmap)


REFUSED = {
    'posix.system': call(named('posix', 'system'), push('touch executed')),
    'eval': call(named('__builtin__', 'eval'), push('open("executed", "w")')),
    'getattr.__class__': call(named('builtins', 'getattr'), push('x'), push('__class__')),
    'numpy.dtype of objects': array((1,), '\1' * 8, code='O'),
    'numpy.ndarray': call(named('numpy', 'ndarray'), push((4,))),
    'torch.FloatStorage': call(named('torch', 'FloatStorage'), push(10**12)),
    'torch.FloatTensor': named('torch', 'FloatTensor') + b')\x81',
    'torch.Tensor': named('torch', 'Tensor') + b')\x81',
    'torch.storage._load_from_bytes': call(named('torch.storage', '_load_from_bytes'), push('')),
    'torch._utils._rebuild_qtensor': call(named('torch._utils', '_rebuild_qtensor'), reference()),
    'torch._utils._rebuild_sparse_tensor': call(named('torch._utils', '_rebuild_sparse_tensor'), push(0)),
    'torch._tensor._rebuild_from_type_v2': call(named('torch._tensor', '_rebuild_from_type_v2'), push(0)),
    'the pickle operation INST': b'(' + push('touch executed') + b'iposix\nsystem\n',
    'the pickle operation OBJ': b'(' + named('collections', 'OrderedDict') + b'o',
    'the pickle operation EXT1': b'\x82\x01',
    'the pickle operation STACK_GLOBAL': push('posix') + push('system') + b'\x93',
    'the pickle operation PERSID': b'P0\n',
}


@pytest.mark.parametrize('what', REFUSED)
def test_a_pickle_that_asks_for_more_is_refused_by_name(read, what):
    with pytest.raises(UserError, match=rf'net.pth is refused: it asks to run {what}, which is not safe'):
        read(file_of(REFUSED[what]))


@pytest.mark.parametrize(
    'value',
    [
        push({}) + doubled() + push(1) + b's',
        call(named('__builtin__', 'set'), b']' + doubled() + b'a'),
        call(named('collections', 'Counter'), doubled()),
        call(named('numpy', 'dtype'), doubled(), push(False), push(True)),
        call(named('__builtin__', 'getattr'), named('mmengine.logging.history_buffer', 'HistoryBuffer'), doubled()),
        call(named('torch', 'device'), doubled()),
        call(named('torch', 'Size'), doubled()),
        call(REBUILD, doubled(), doubled(), doubled(), doubled()),
        tuple_of(push('storage'), named('torch', 'FloatStorage'), doubled(), push('cpu'), push(4)) + b'Q',
        tuple_of(doubled(), named('torch', 'FloatStorage'), push('0'), push('cpu'), push(4)) + b'Q',
        HOOKS + doubled() + b'b',
    ],
)
def test_what_would_take_forever_to_look_at_is_not_looked_at(read, value):
    with pytest.raises(UserError, match=r'net.pth is (broken|refused)'):
        read(file_of(value))


def repeated(function, argument, times=100):
    """The same call of the same long argument again and again."""
    return b'(' + function + b'q\1' + argument + b'\x85q\2' + b'h\1h\2R' * times + b't'


@pytest.mark.parametrize(
    'value',
    [
        repeated(named('collections', 'Counter'), push(dict.fromkeys(range(20_000)))),
        repeated(named('__builtin__', 'set'), push(list(range(20_000)))),
        repeated(named('__builtin__', 'bytes'), push('x' * 200_000)),
        named('argparse', 'Namespace')
        + b')\x81'
        + push(dict.fromkeys(map(str, range(20_000))))
        + b'q\2b'
        + b'h\2b' * 100,
    ],
    ids=['Counter', 'set', 'bytes', 'Namespace'],
)
def test_little_to_store_is_little_in_memory_and_soon_read(read, value):
    with pytest.raises(UserError, match=r'net.pth is broken'):
        read(file_of(value))


@pytest.mark.parametrize(
    'value',
    [
        tensor(shape=(2**40,), stride=(0,)) + b'Q',
        array((2,), '\0' * 16) + tensor(shape=(2**40,), stride=(0,)) + b'b',
    ],
)
def test_a_tensor_of_more_numbers_than_there_is_memory_is_never_walked_through(read, value, monkeypatch):
    monkeypatch.setattr(torch.Tensor, 'unbind', None)
    monkeypatch.setattr(torch.Tensor, '__iter__', lambda _: pytest.fail('walked through'))
    with pytest.raises(UserError, match=r'net.pth is broken'):
        read(file_of(value))


def test_keys_that_python_gives_the_same_hash_are_refused(read):
    with pytest.raises(UserError, match=r'net.pth is broken'):
        read(file_of(push({7 * (2**61 - 1): 0})))


def test_a_refused_name_is_shortened_and_cannot_command_the_terminal(read):
    with pytest.raises(UserError) as refusal:
        read(file_of(b'cposix\nsystem\x1b[2J' + b'x' * 100_000 + b'\n'))
    assert r'posix.system\x1b[2Jxxx' in str(refusal.value)
    assert len(str(refusal.value)) < 300


def test_options_of_a_command_line_are_read_as_timm_writes_them(read, tmp_path):
    args = argparse.Namespace(model='fasternet_t0', lr=0.1, betas=(0.9, 0.999), resume=None)
    torch.save(dict(args=args, state_dict=dict(w=torch.ones(2))), tmp_path / 'net.pth')
    assert read((tmp_path / 'net.pth').read_bytes())['args'] == args


def test_text_in_arrays_and_a_few_values_as_a_key_are_read(read, tmp_path):
    content = dict(
        names=np.array(['cat', 'Ösi']), raw=np.array([b'a', b'bcd']), text=np.str_('dog'), key={(0, 'a'): {(1, 2)}}
    )
    torch.save(content, tmp_path / 'net.pth')
    found = read((tmp_path / 'net.pth').read_bytes())
    assert found['names'].tolist() == ['cat', 'Ösi']
    assert found['raw'].tolist() == [b'a', b'bcd']
    assert (found['text'], found['key']) == ('dog', {(0, 'a'): {(1, 2)}})


def test_what_nobody_looks_at_may_be_as_deep_as_it_likes(read):
    assert isinstance(read(file_of(doubled()))['x'], tuple)


def test_numbers_of_the_other_byte_order_are_not_read_as_ours(read):
    with pytest.raises(UserError, match=r'net.pth is broken'):
        read(file_of(tensor(), byteorder='big'))


def legacy(value, keys, storages, count=4):
    """The file format before PyTorch 1.6, with one entry under the key 'x'."""
    head = (0x1950A86A20F9469CFC6C, 1001, dict(little_endian=True))
    pickles = b''.join(pickle.dumps(part, 2) for part in head)
    content = b'\x80\x02}' + push('x') + value + b's.' + pickle.dumps(keys, 2)
    return pickles + content + b''.join(count.to_bytes(8, 'little', signed=True) + data for data in storages)


def legacy_reference(count=4):
    parts = push('storage'), named('torch', 'FloatStorage'), push('0'), push('cpu'), push(count), push(None)
    return tuple_of(*parts) + b'Q'


def test_the_format_before_pytorch_1_6_reads_as_pytorch_reads_it(read, tmp_path):
    found = read(legacy(tensor(storage=legacy_reference()), ['0'], [FLOATS]))['x']
    assert torch.equal(found, torch.load(tmp_path / 'net.pth', weights_only=True)['x'])


@pytest.mark.parametrize(
    'content',
    [
        legacy(tensor(storage=legacy_reference(10**9)), ['0'], [FLOATS], 10**9),
        legacy(tensor(storage=legacy_reference()), ['0'], [FLOATS], 2),
        legacy(tensor(storage=legacy_reference()), ['0'], [FLOATS], -4),
        legacy(tensor(storage=legacy_reference()), ['0'], [FLOATS[:-1]]),
        legacy(tensor(storage=legacy_reference()), [], []),
        legacy(tensor(storage=legacy_reference()), ['1'], [FLOATS]),
        legacy(tensor(storage=legacy_reference()), ['0', '0'], [FLOATS, FLOATS]),
        legacy(tensor() + push(0) + push(1.0) + b's', ['0'], [FLOATS]),
        legacy(tensor(storage=legacy_reference()), {}, [FLOATS]),
    ],
)
def test_a_file_of_that_format_that_pytorch_never_writes_is_broken(read, content):
    with pytest.raises(UserError, match=r'net.pth is broken'):
        read(content)


def everything():
    """What training checkpoints of MMEngine and others hold."""
    weight = torch.randn(4, 3, 2)
    norm = torch.nn.BatchNorm2d(3)
    return dict(
        state_dict=norm.state_dict(),
        types=[torch.ones(3).to(kind) for kind in (torch.float16, torch.bfloat16, torch.float64, torch.uint8)],
        flags=torch.tensor([True, False]),
        complex=torch.ones(2, dtype=torch.complex64),
        none=torch.zeros(0, 3),
        number=torch.tensor(7),
        turned=weight.permute(2, 0, 1),
        part=weight[1:, 1:],
        parameter=torch.nn.Parameter(torch.ones(2), requires_grad=False),
        optimizer=dict(state={0: dict(step=torch.tensor(3.0))}, param_groups=[dict(lr=0.1, betas=(0.9, 0.999))]),
        milestones=Counter([8, 11]),
        names=OrderedDict(a={1, 2}, b=('x', None, True, -5, 2**40, b'raw', b'', 1.5)),
        size=torch.Size([2, 3]),
        dtype=torch.bfloat16,
        numpy=[np.float32(2.5), np.int64(-3), np.bool_(True), np.arange(6.0).reshape(2, 3), np.zeros(0, np.uint8)],
        by_columns=np.asfortranarray(np.arange(6).reshape(2, 3)),
        history=HistoryBuffer([1.5, 2.5], [1, 3], 10),
        long_history=HistoryBuffer([1 / 3] * 1000, [1] * 1000, 1000),
        random_state=np.random.RandomState(0).get_state(),
    )


def as_plain(value):
    """Nested values with tensors, arrays and histories as what can be compared."""
    if isinstance(value, torch.Tensor):
        numbers = value.detach()
        numbers = numbers.tolist() if numbers.is_complex() else numbers.double().tolist()
        return type(value), value.dtype, tuple(value.shape), value.stride(), numbers
    if isinstance(value, np.ndarray | np.generic):
        return type(value), value.dtype, value.shape, value.tolist()
    if isinstance(value, HistoryBuffer):
        return value.max_length, *map(as_plain, value.data), value.mean()
    if isinstance(value, dict):
        return type(value), {key: as_plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(part) for part in value]
    return value


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('mmap', [True, False])
def test_all_that_checkpoints_hold_comes_back_as_pytorch_itself_unpickles_it(tmp_path, zipped, mmap):
    torch.save(everything(), tmp_path / 'net.pth', _use_new_zipfile_serialization=zipped)
    found = read_file(tmp_path / 'net.pth', 'net.pth', mmap)
    assert as_plain(found) == as_plain(torch.load(tmp_path / 'net.pth', weights_only=False))
    assert found['turned'].untyped_storage().data_ptr() == found['part'].untyped_storage().data_ptr()
    found['part'].zero_()  # tensors can be written to, and what they share is shared
    assert found['turned'][:, 1:, 1:].abs().sum() == 0
    assert torch.load(tmp_path / 'net.pth', weights_only=False)['part'].abs().sum() > 0
