"""Exported networks of any origin beside detectors."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from fasternet_mm.benchmark.network_files import FileTask, check_files, file_candidates, prepare_file
from fasternet_mm.benchmark.results import table
from fasternet_mm.benchmark.timing import Candidate, compare
from fasternet_mm.cli.benchmark import configs_and_checkpoints
from fasternet_mm.deployment.writers import BY_TRACING, OPSET
from fasternet_mm.errors import UserError

IMAGE = torch.randint(0, 256, (3, 6, 8), dtype=torch.uint8)
BASELINE = 'detector', 'eager'


class Mean(nn.Module):
    """Of red, so that it shows what the network got."""

    def forward(self, images):
        return images[:, 0].float().mean()


class Sum(nn.Module):
    def forward(self, a, b):
        return a + b


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('files')

    def write(name, network, *inputs, **options):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            torch.onnx.export(network, inputs, str(folder / name), opset_version=OPSET, **BY_TRACING, **options)

    floats, free = torch.rand(1, 3, 6, 8), dict(input_names=['x'], dynamic_axes=dict(x={0: 'n', 2: 'h', 3: 'w'}))
    write('float.onnx', Mean(), floats)
    write('uint8.onnx', Mean(), IMAGE[None])
    write('any.onnx', Mean(), floats, **free)
    write('two.onnx', Sum(), floats, floats)
    write('rows.onnx', nn.Linear(3, 4), torch.rand(2, 3))
    (folder / 'damaged.onnx').write_text('no network')
    torch.jit.trace(Mean(), floats).save(folder / 'network.torchscript')
    torch.jit.trace(nn.Sequential(nn.Flatten(), nn.Linear(144, 1)), floats).save(folder / 'sized.pt')
    torch.save(nn.Linear(3, 4).state_dict(), folder / 'weights.pt')
    return folder


@pytest.mark.parametrize('engine', ['onnxruntime', 'openvino'])
@pytest.mark.parametrize(('name', 'scale'), [('float.onnx', 255), ('any.onnx', 255), ('uint8.onnx', 1)])
def test_a_network_gets_the_image_in_the_type_of_its_input(engine, name, scale, folder):
    pytest.importorskip(engine)
    result = prepare_file(engine, FileTask(str(folder / name), IMAGE))()
    (mean,) = result.values() if engine == 'openvino' else result
    np.testing.assert_allclose(mean * scale, IMAGE[0].float().mean(), rtol=1e-4)


def test_torchscript_gets_numbers_from_0_to_1(folder):
    result = prepare_file('eager', FileTask(str(folder / 'network.torchscript'), IMAGE))()
    torch.testing.assert_close(result * 255, IMAGE[0].float().mean())


def test_files_take_turns_with_the_baseline_and_find_nothing_that_is_counted(folder):
    pytest.importorskip('onnxruntime')
    pytest.importorskip('openvino')
    facts = dict(height=6, width=8, detections=3)
    baseline = Candidate(*BASELINE, prepare=lambda: lambda: sum(range(1000)), facts=facts, baseline=BASELINE)
    files = [str(folder / 'float.onnx'), str(folder / 'network.torchscript')]
    candidates = [baseline, *file_candidates(files, ['optimized'], IMAGE, 'cpu', BASELINE)]
    assert [candidate.key for candidate in candidates[1:]] == [
        ('float.onnx', 'onnxruntime'),
        ('float.onnx', 'openvino'),
        ('network.torchscript', 'eager'),
    ]
    comparison = compare(candidates, 2, 0)
    assert all(row['ratio']['median'] > 0 for row in comparison['rows'])
    lines = table('detectors', comparison).splitlines()
    assert [line.split('|')[4].strip() for line in lines[2:]] == ['3', '–', '–', '–']


def test_only_engines_that_are_asked_for_run_a_file(folder):
    def engines(*asked):
        return [candidate.engine for candidate in file_candidates(['x.onnx'], asked, IMAGE, 'cpu', BASELINE)]

    assert engines('eager', 'openvino-bfloat16', 'openvino') == ['openvino', 'openvino-bfloat16']
    assert engines('optimized') == ['onnxruntime', 'openvino']


@pytest.mark.parametrize(
    ('name', 'trust', 'device', 'message'),
    [
        ('network.engine', True, 'cpu', r'network.engine: its suffix is unknown, give an ONNX file'),
        ('network.torchscript', False, 'cpu', r'network.torchscript is refused: .*--trust-program'),
        ('float.onnx', False, 'cuda', r'float.onnx: ONNX files run on the CPU here, add --device cpu'),
    ],
)
def test_files_that_are_not_run_are_refused_before_anything_is_measured(name, trust, device, message):
    with pytest.raises(UserError, match=message):
        check_files([name], ['eager'], device, trust)


@pytest.mark.parametrize('engine', ['onnxruntime', 'openvino'])
@pytest.mark.parametrize(
    ('name', 'size', 'message'),
    [
        ('float.onnx', (8, 6), r'takes images of 6 8 \(H W\), not 8 6: give that --size'),
        ('two.onnx', (6, 8), 'does not take one image: --beside is for networks with one input'),
        ('rows.onnx', (6, 8), 'does not take one image'),
        ('damaged.onnx', (6, 8), 'cannot be read as an ONNX file, export it again'),
    ],
)
def test_networks_that_do_not_take_the_image_are_told(engine, name, size, message, folder):
    pytest.importorskip(engine)
    with pytest.raises(UserError, match=message):
        prepare_file(engine, FileTask(str(folder / name), torch.zeros(3, *size, dtype=torch.uint8)))


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('weights.pt', 'cannot be read as TorchScript'),
        ('sized.pt', r'does not take a float32 image 1x3x8x8, give the --size that it was exported for'),
    ],
)
def test_torchscript_that_cannot_be_run_is_told(name, message, folder):
    with pytest.raises(UserError, match=message):
        prepare_file('eager', FileTask(str(folder / name), torch.zeros(3, 8, 8, dtype=torch.uint8)))


def test_a_checkpoint_belongs_to_the_config_before_it(root):
    configs = root / 'configs'
    assert configs_and_checkpoints(['rtmdet_fasternet_t0', 'best.pth', 'faster_rcnn_fasternet_t0']) == [
        (str(configs / 'rtmdet_fasternet_t0.py'), 'best.pth'),
        (str(configs / 'faster_rcnn_fasternet_t0.py'), None),
    ]


@pytest.mark.parametrize(
    ('texts', 'message'),
    [
        (['best.pth'], 'config best.pth does not exist'),
        (['rtmdet_fasternet_t0', 'a.pth', 'b.pth'], 'config b.pth does not exist'),
        (['rtmdet_fasternet_t0', 'rtmdet_fasternet_t9.py'], "did you mean 'rtmdet_fasternet_t"),
        (['rtmdet_fasternet_t0'] * 2, 'rtmdet_fasternet_t0 is given twice'),
    ],
)
def test_lists_of_models_that_cannot_be_read_are_told(texts, message):
    with pytest.raises(UserError, match=message):
        configs_and_checkpoints(texts)
