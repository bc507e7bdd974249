"""Small random models whose numbers are spread as trained ones' are, and images for them."""

import torch
from mmdet.structures import DetDataSample

from fasternet_mm.engine.runner import build_model

SMALL = dict(embed_dim=16, depths=(1, 1, 1, 1), act='GELU')

SCALES = {
    'rpn_head.rpn_cls.weight': 20,
    'rpn_head.rpn_reg.weight': 5,
    'roi_head.bbox_head.fc_cls.weight': 10,
    'roi_head.bbox_head.fc_reg.weight': 10,
}


def spread_model(cfg, scales):
    """A random model whose numbers are spread as a trained one's: norms know their maps, some outputs are scaled."""
    torch.manual_seed(0)
    model = build_model(cfg)
    model.init_weights()
    for name, scale in scales.items():
        model.get_parameter(name).data.mul_(scale)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    images = [image(160, 160, seed) for seed in (8, 9)]
    data = model.data_preprocessor(dict(inputs=images, data_samples=[sample(160, 160) for _ in images]))
    with torch.no_grad():
        model.train()._run_forward(data, mode='tensor')
    return model.eval()


def sample(height, width, ori_shape=None, scale_factor=(1.0, 1.0)):
    return DetDataSample(
        metainfo=dict(img_shape=(height, width), ori_shape=ori_shape or (height, width), scale_factor=scale_factor)
    )


def image(height, width, seed=0):
    """Colored patches, uint8 ``(3, H, W)``."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(1, 3, 7, 9, generator=generator) * 255
    return torch.nn.functional.interpolate(small, (height, width), mode='bicubic').clamp(0, 255)[0].byte()
