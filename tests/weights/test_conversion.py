import pytest
import timm
import torch
from safetensors import safe_open

from fasternet_mm import FasterNet, FasterNetClassifier, load_weights
from fasternet_mm.errors import UserError
from fasternet_mm.weights.conversion import convert
from fasternet_mm.weights.sources import read_checkpoint

TINY = dict(embed_dim=16, depths=(1, 1, 1, 1))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_to_safetensors_and_back_is_bit_equal(tmp_path, dtype):
    state = {name: value.to(dtype) for name, value in FasterNetClassifier(TINY).state_dict().items()}
    there, back = str(tmp_path / 'net.safetensors'), str(tmp_path / 'back.pth')
    torch.save(dict(state_dict=state, optimizer=dict(lr=1)), tmp_path / 'net.pth')
    convert(str(tmp_path / 'net.pth'), there)
    convert(there, back)
    found = torch.load(back, weights_only=True)
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(
            found[name].view(torch.uint8) if value.dim() else found[name],
            value.view(torch.uint8) if value.dim() else value,
        )
    with safe_open(there, 'pt') as file:
        assert file.metadata() == dict(format='pt')


@pytest.mark.parametrize('name', ['net.safetensors', 'net.pth'])
def test_whoever_may_read_other_new_files_may_read_the_converted_one(tmp_path, name):
    other = tmp_path / 'other'
    other.touch()
    torch.save(FasterNet(TINY).state_dict(), tmp_path / 'source.pth')
    convert(str(tmp_path / 'source.pth'), str(tmp_path / name))
    assert (tmp_path / name).stat().st_mode == other.stat().st_mode


def test_timms_names_become_ours(tmp_path):
    peer = timm.create_model('fasternet_t0')
    torch.save(peer.state_dict(), tmp_path / 'timm.bin')
    convert(str(tmp_path / 'timm.bin'), str(tmp_path / 'net.safetensors'))
    assert read_checkpoint(str(tmp_path / 'net.safetensors')).keys() == FasterNetClassifier('t0').state_dict().keys()


def test_a_detector_keeps_all_its_parts(tmp_path, fixtures):
    source = str(fixtures / 'reference_fasternet' / 'detector_relu.pth')
    convert(source, str(tmp_path / 'net.safetensors'))
    converted = read_checkpoint(str(tmp_path / 'net.safetensors'))
    assert converted.keys() == read_checkpoint(source)['state_dict'].keys()
    load_weights(FasterNet(dict(embed_dim=16, depths=(1, 1, 2, 1))), str(tmp_path / 'net.safetensors'))


def test_views_of_one_tensor_are_written_each_alone(tmp_path):
    whole = torch.arange(10_000.0)
    torch.save(dict(first=whole[:2], second=whole[::5000], third=whole[:4].view(2, 2).T), tmp_path / 'net.pth')
    for name in ('out.safetensors', 'out.pth'):
        convert(str(tmp_path / 'net.pth'), str(tmp_path / name))
        found = read_checkpoint(str(tmp_path / name))
        assert found['second'].tolist() == [0, 5000]
        assert found['third'].tolist() == [[0, 2], [1, 3]]
        assert (tmp_path / name).stat().st_size < 10_000


@pytest.mark.parametrize(
    ('out', 'message'), [('net.bin', r'must end in .safetensors, or in .pth'), ('file/net.pth', r'cannot be written')]
)
def test_a_place_that_will_not_do_is_named_and_nothing_is_left(tmp_path, out, message):
    torch.save(dict(weight=torch.zeros(1)), tmp_path / 'file')
    with pytest.raises(UserError, match=message):
        convert(str(tmp_path / 'file'), str(tmp_path / out))
    assert [path.name for path in tmp_path.iterdir()] == ['file']
