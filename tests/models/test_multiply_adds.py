import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from torch import nn

from fasternet_mm import FasterNet, FasterNetClassifier
from fasternet_mm.cli import complexity as complexity_command
from fasternet_mm.engine.config import load_config
from fasternet_mm.engine.runner import build_model
from fasternet_mm.models.multiply_adds import complexity
from fasternet_mm.models.published import CLASSIFIERS, MASK_RCNN


@pytest.mark.parametrize(
    ('peer', 'parameters', 'macs'),
    [('swin_tiny', 60, 945), ('convnext_tiny', 60, 939)],
)
def test_upernets_of_others_count_as_their_papers_do(root, peer, parameters, macs):
    """Swin: arXiv 2103.14030; ConvNeXt: arXiv 2201.03545."""
    cfg = load_config(str(root / f'configs/peers/upernet_{peer}.py'))
    cfg.default_scope = 'mmseg'
    counted = complexity(build_model(cfg), 512, 2048)
    assert counted.parameters / 1e6 == pytest.approx(parameters, abs=0.5)
    assert counted.macs / 1e9 == pytest.approx(macs, abs=1)


def test_a_convolution_counts_one_multiply_add_per_weight_and_pixel():
    counted = complexity(nn.Conv2d(3, 8, 3, padding=1, bias=False), 10, 20)
    assert counted == (3 * 8 * 9, 3 * 8 * 9 * 10 * 20)


@pytest.mark.parametrize('arch', CLASSIFIERS)
def test_classifiers_count_as_the_paper_does(arch):
    counted, paper = complexity(FasterNetClassifier(arch), 224, 224), CLASSIFIERS[arch]
    assert counted.parameters / 1e6 == pytest.approx(paper.parameters, abs=0.1)
    assert counted.macs / 1e9 == pytest.approx(paper.gmacs, rel=0.015)


def test_mask_rcnn_counts_as_the_paper_does_but_for_half_of_the_proposals(root):
    """258 G are MMDetection's count with 500 proposals; with its 1000 they would be 265."""
    cfg = load_config(str(root / 'configs/mask_rcnn_fasternet_s.py'))
    counted, as_in_paper = (
        complexity(build_model(cfg), 800, 1280),
        complexity(build_model(cfg), 800, 1280, proposals=500),
    )
    assert counted.parameters / 1e6 == pytest.approx(MASK_RCNN['s'].parameters, abs=0.05)
    assert as_in_paper.macs / 1e9 == pytest.approx(MASK_RCNN['s'].gmacs, abs=0.5)
    box_head = cfg.model.roi_head.bbox_head
    layers = 256 * 7 * 7 * 1024 + 1024 * 1024 + 1024 * (5 * box_head.num_classes + 1)
    assert counted.macs - as_in_paper.macs == 500 * layers


def test_a_detector_of_one_stage_counts_as_mmengine_does(tmp_path):
    (tmp_path / 'retinanet.py').write_text("_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'")
    cfg = load_config(str(tmp_path / 'retinanet.py'))
    cfg.default_scope = 'mmdet'
    model = build_model(cfg)
    expected = FlopAnalyzer(model, torch.zeros(1, 3, 64, 96)).by_operator()['conv']
    assert complexity(model, 64, 96).macs == expected


def test_nothing_is_computed():
    model = FasterNet('t0')
    complexity(model, 64, 64)
    assert all(p.device == torch.device('meta') for p in model.parameters())


def test_the_command_counts_rtmdet_at_the_size_that_it_pads_to(root, capsys):
    args = complexity_command.arguments().parse_args([str(root / 'configs/rtmdet_fasternet_t0.py')])
    complexity_command.main(args)
    assert capsys.readouterr().out.splitlines()[-1].split('|')[-2].strip() == '640x640'
