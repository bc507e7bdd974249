"""FasterNet as an ImageNet classifier, so that published checkpoints can be checked by their logits."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .backbone import FasterNet, FasterNetModule, InvalidArgument, build_activation, check_input_size


class FasterNetClassifier(FasterNetModule):
    """FasterNet with the paper's last three layers: global average pooling, 1x1 convolution, fully connected.

    Paper: section 3.3 and figure 4, https://arxiv.org/abs/2303.03667. Parameter names are those of the authors' code.

    Args:
        arch: see `FasterNet`. Default: 's'.
        num_classes: Default: 1000.
        feature_dim: channels between the last two layers. Default: 1280.
        act_cfg: activation everywhere; overrides the variant's own. Default: None.
        init_cfg: MMEngine's initialization. Default: truncated normal of std 0.02, the authors' choice.
        backbone_args: ``drop_path_rate``, ``norm_cfg``, ``in_channels`` and the like, as for `FasterNet`.

    Shape:
        ``(N, in_channels, H, W)``, H and W >= 32, to logits ``(N, num_classes)``.

    Raises:
        InvalidArgument: an argument is outside what is accepted.
    """

    def __init__(
        self,
        arch: str | dict[str, Any] = 's',
        num_classes: int = 1000,
        feature_dim: int = 1280,
        act_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
        **backbone_args: Any,
    ) -> None:
        super().__init__(init_cfg)
        if num_classes < 1 or feature_dim < 1:
            raise InvalidArgument(f'num_classes={num_classes}, feature_dim={feature_dim}: both must be at least 1')
        backbone = FasterNet(arch, act_cfg=act_cfg, **backbone_args)
        self.num_classes = num_classes
        self.patch_embed = backbone.patch_embed
        self.stages = backbone.stages
        self.avgpool_pre_head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(backbone.channels[-1], feature_dim, 1, bias=False),
            build_activation(act_cfg or dict(type=backbone.arch['act'])),
        )
        self.head = nn.Linear(feature_dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x)
        x = self.patch_embed(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(self.avgpool_pre_head(x).flatten(1))
