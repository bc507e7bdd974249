"""Figures of docs/architecture.md, from the modules themselves: ``python docs/figures/draw_network.py``.

What is drawn comes from `gather_network`, `gather_block`, `gather_reach` and `shares`, which read and run the modules:
a change of the network changes the figures. ``tests/documentation/test_architecture.py`` compares all four with the
paper.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from torch import nn

import fasternet_mm
from fasternet_mm.models.backbone import FasterNetBlock, FasterNetStage, PartialConv
from fasternet_mm.models.multiply_adds import count_macs
from fasternet_mm.report.plots import COLORS, INK, STYLE, new_figure, write_figure

IMAGES = Path(__file__).parent.parent / 'images'
SIDE = 640
"""Height and width of the image that goes through the drawn network, in pixels: RTMDet's."""


class Part(NamedTuple):
    """What stands between two shapes of map.

    Attributes:
        name: 'embedding', 'merging', 'stage 1', …
        does: what is in it, in words.
        shape: of the map that comes out, (C, H, W).
        stride: pixels of the image per pixel of that map.
        parameters: numbers that are learned.
        macs: multiply-adds of one image.
        norm: the output norm that follows, as 'norm0'; '' where there is none.
    """

    name: str
    does: str
    shape: tuple[int, int, int]
    stride: int
    parameters: int
    macs: int
    norm: str = ''


class Layer(NamedTuple):
    """A layer of a block: what it is called, channels in and out, parameters, multiply-adds per pixel of the map."""

    name: str
    inputs: int
    outputs: int
    parameters: int
    macs: int


def gather_network(arch: str) -> list[Part]:
    """The parts of a variant in the order in which an image of `SIDE` pixels goes through them."""
    with torch.device('meta'):
        net = fasternet_mm.FasterNet(arch).eval().requires_grad_(False)
        x = torch.empty(1, 3, SIDE, SIDE)
    parts = []
    for position, module in enumerate((net.patch_embed, *net.stages), -1):
        macs = count_macs(lambda module=module, x=x: module(x))
        x = module(x)
        stage = isinstance(module, FasterNetStage)
        name = f'stage {position // 2 + 1}' if stage else 'embedding' if position < 0 else 'merging'
        norm = f'norm{position}' if stage and position // 2 in net.out_indices else ''
        parts.append(Part(name, _contents(module), tuple(x.shape[1:]), SIDE // x.shape[-1], size(module), macs, norm))
    return parts


def _contents(module: nn.Module) -> str:
    if isinstance(module, FasterNetStage):
        return f'{len(module.blocks)} block{"s" if len(module.blocks) > 1 else ""}'
    conv, norm = module.children()
    return f'{_kernel(conv)} convolution, stride {conv.stride[0]}; {_layer_name(norm)}'


def _kernel(conv: nn.Conv2d) -> str:
    return f'{conv.kernel_size[0]}×{conv.kernel_size[1]}'


def _layer_name(layer: nn.Module) -> str:
    if isinstance(layer, PartialConv):
        return f'PConv {_kernel(layer.partial_conv3)}'
    if isinstance(layer, nn.Conv2d):
        return f'PWConv {_kernel(layer)}'
    return 'batch norm' if isinstance(layer, nn.BatchNorm2d) else type(layer).__name__


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def gather_block(block: FasterNetBlock) -> list[Layer]:
    """PConv and the layers of the pointwise pair, in order."""
    x = torch.empty(1, block.mlp[0].in_channels, 1, 1)
    layers = []
    for layer in (block.spatial_mixing, *block.mlp):
        macs = count_macs(lambda layer=layer, x=x: layer(x))
        y = layer(x)
        layers.append(Layer(_layer_name(layer), x.shape[1], y.shape[1], size(layer), macs))
        x = y
    return layers


def gather_reach(block: FasterNetBlock, side: int = 5) -> torch.Tensor:
    """What a pixel after PConv and the first PWConv depends on, bool ``(C, side, side)``: inputs with a gradient."""
    block = copy.deepcopy(block)
    x = torch.ones(1, block.mlp[0].in_channels, side, side, requires_grad=True)
    for convolution in (block.spatial_mixing.partial_conv3, block.mlp[0]):
        nn.init.ones_(convolution.weight)
    block.mlp[0](block.spatial_mixing(x))[0, 0, side // 2, side // 2].backward()
    return x.grad[0] != 0


def shares(mixing: PartialConv, channels: int, side: int) -> tuple[float, float]:
    """PConv's multiply-adds and memory accesses over those of a convolution of all channels (paper, section 3).

    Accesses are numbers read and written of maps, and read of weights.
    """
    x = torch.empty(1, channels, side, side, device='meta')
    part = mixing.partial_conv3
    whole = nn.Conv2d(channels, channels, part.kernel_size, padding=part.padding, bias=False, device='meta')
    macs = [count_macs(lambda layer=layer: layer(x)) for layer in (copy.deepcopy(mixing).to('meta'), whole)]
    accesses = [2 * conv.in_channels * side**2 + size(conv) for conv in (part, whole)]
    return macs[0] / macs[1], accesses[0] / accesses[1]


@rc_context(STYLE)
def draw_pconv(block: FasterNetBlock, side: int) -> Figure:
    """Channels through PConv, and the T that it makes with the pointwise convolution after it."""
    reach = gather_reach(block)
    channels, convolved = len(reach), block.spatial_mixing.dim_conv
    figure = Figure((4.8, 4.4), layout='constrained')
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    for axes in (left, right):
        _bare(axes)
        axes.set_ylim(channels + 0.5, -0.5)
    for x in (0, 4.2):
        _cells(left, x, 1, convolved, channels)
    middle = (convolved + channels) / 2
    for y, text in (
        (convolved / 2, f'{_kernel(block.spatial_mixing.partial_conv3)}\n{convolved} to {convolved}'),
        (middle, f'as they are\n{channels - convolved}'),
    ):
        _arrow(left, (1.2, y), (4.0, y))
        left.text(2.6, y - 0.6, text, ha='center', va='bottom', fontsize=9, linespacing=1.3)
    left.set(xlim=(-0.2, 5.4))
    left.set_title(f'PConv: {convolved} of {channels} channels\nare convolved', fontsize=10)
    rows = reach[:, reach.shape[1] // 2]
    for channel, pixels in enumerate(rows.tolist()):
        for pixel, seen in enumerate(pixels):
            color = COLORS[0] if channel < convolved else INK
            right.add_patch(
                Rectangle((pixel + 0.05, channel + 0.1), 0.9, 0.8, color=color, alpha=1 if seen else 0.12, linewidth=0)
            )
    right.set(xlim=(-0.2, rows.shape[1] + 0.2))
    right.set_title('and with the PWConv after it\na pixel sees a T', fontsize=10)
    right.text(rows.shape[1] / 2, channels + 0.8, 'pixels of a row', ha='center', va='top', fontsize=9)
    left.text(2.6, channels + 0.8, 'channels from top to bottom', ha='center', va='top', fontsize=9)
    macs, accesses = shares(block.spatial_mixing, channels, side)
    figure.supxlabel(
        f'Against such a convolution of all {channels} channels, on a map of {side}×{side}:\n'
        f'multiply-adds 1/{1 / macs:.0f}, memory accesses 1/{1 / accesses:.1f}',
        fontsize=9,
        linespacing=1.4,
    )
    return figure


def _cells(axes: Axes, x: float, width: float, convolved: int, channels: int) -> None:
    for channel in range(channels):
        color = COLORS[0] if channel < convolved else INK
        axes.add_patch(Rectangle((x, channel + 0.1), width, 0.8, color=color, linewidth=0))


def _bare(axes: Axes) -> None:
    axes.set_axis_off()
    axes.grid(visible=False)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], **style: object) -> None:
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle='-|>', mutation_scale=9, color=INK, shrinkA=0, shrinkB=0, **style)
    )


@rc_context(STYLE)
def draw_block(layers: list[Layer], convolved: int) -> Figure:
    """A block from top to bottom; boxes are as wide as they have channels."""
    figure, axes = new_figure(4.8, 4.3)
    _bare(axes)
    widest, channels = max(layer.outputs for layer in layers), layers[0].inputs
    axes.set(xlim=(-0.72 * widest, 1.28 * widest), ylim=(len(layers) + 1.75, -0.3))
    axes.text(0, 0, f'{channels} channels', ha='center', va='center')
    for number, layer in enumerate(layers):
        y = 1 + number
        _arrow(axes, (0, y - (0.8 if number == 0 else 0.66)), (0, y - 0.34))
        _box(axes, layer, y, convolved if number == 0 else layer.outputs)
        counts = f'{layer.parameters:,} parameters' if layer.parameters else 'no parameters'
        counts += f'\n{layer.macs:,} multiply-adds a pixel' if layer.macs else ''
        axes.text(0.56 * widest, y, counts, va='center', fontsize=8, linespacing=1.3)
    bottom = len(layers) + 1
    _arrow(axes, (0, bottom - 0.66), (0, bottom - 0.18))
    axes.text(0, bottom, '+', ha='center', va='center', fontsize=15)
    edge = -0.66 * widest
    axes.plot([-0.2 * widest, edge, edge], [0, 0, bottom], color=INK, linewidth=1)
    _arrow(axes, (edge, bottom), (-0.05 * widest, bottom))
    axes.text(edge + 0.02 * widest, bottom - 0.12, 'shortcut', fontsize=8, va='bottom')
    _arrow(axes, (0, bottom + 0.18), (0, bottom + 0.52))
    axes.text(0, bottom + 0.65, f'{channels} channels', ha='center', va='center')
    return figure


def _box(axes: Axes, layer: Layer, y: float, colored: int) -> None:
    """As wide as the channels that it gives, the ``colored`` ones in color and the others, untouched, pale."""
    color = COLORS[0] if layer.macs else COLORS[4]
    left, height = -layer.outputs / 2, 0.62
    axes.add_patch(Rectangle((left, y - height / 2), layer.outputs, height, color=INK, alpha=0.25, linewidth=0))
    axes.add_patch(Rectangle((left, y - height / 2), colored, height, color=color, linewidth=0))
    if colored < layer.outputs:
        axes.text(left + colored * 1.1, y, layer.name, va='center', fontsize=9)
    else:
        axes.text(0, y, layer.name, ha='center', va='center', color='white', fontsize=9)


@rc_context(STYLE)
def draw_network(parts: list[Part], title: str) -> Figure:
    """Maps as squares, each side the root of the map's, with what is done beside them and what it costs."""
    figure, axes = new_figure(4.8, 6.4)
    _bare(axes)
    axes.set(xlim=(0, 10), ylim=(len(parts) + 1.05, -0.8))
    axes.text(0.1, -0.65, title, fontsize=10, va='center')
    axes.text(1.1, 0, f'image\n3 × {SIDE} × {SIDE}', ha='center', va='center', fontsize=8, linespacing=1.3)
    most = {name: max(getattr(part, name) for part in parts) for name in ('parameters', 'macs')}
    for row, part in enumerate(parts, 1):
        color = COLORS[0] if part.name.startswith('stage') else COLORS[1]
        _arrow(axes, (1.1, row - 0.66), (1.1, row - 0.36))
        axes.add_patch(Rectangle((0.1, row - 0.33), 2, 0.66, color=color, linewidth=0))
        axes.text(1.1, row, part.name, ha='center', va='center', color='white', fontsize=9)
        channels, height, width = part.shape
        details = f'{part.does}\n{channels} × {height} × {width}, stride {part.stride}'
        axes.text(2.3, row, details, va='center', fontsize=8, linespacing=1.3)
        if part.norm:
            axes.text(6.3, row + 0.17, f'→ {part.norm}', va='center', fontsize=8)
        for offset, name, text in (
            (-0.16, 'parameters', f'{part.parameters / 1e3:,.0f} k'),
            (0.16, 'macs', f'{part.macs / 1e6:,.0f} M'),
        ):
            length = 1.2 * getattr(part, name) / most[name]
            shade = COLORS[3] if name == 'parameters' else COLORS[2]
            axes.add_patch(Rectangle((7.7, row + offset - 0.13), length, 0.26, color=shade, linewidth=0))
            axes.text(7.8 + length, row + offset, text, va='center', fontsize=7)
    for y, name, shade in ((-0.16, 'parameters', COLORS[3]), (0.16, 'multiply-adds', COLORS[2])):
        axes.add_patch(Rectangle((7.7, y - 0.13), 0.2, 0.26, color=shade, linewidth=0))
        axes.text(8.0, y, name, va='center', fontsize=7)
    axes.text(0.1, len(parts) + 0.5, _total(parts), fontsize=8, va='top', linespacing=1.3)
    return figure


def _total(parts: list[Part]) -> str:
    parameters, macs = (sum(getattr(part, name) for part in parts) for name in ('parameters', 'macs'))
    norms = ', '.join(part.norm for part in parts if part.norm)
    return (
        f'together {parameters / 1e6:.2f} M parameters, {macs / 1e9:.2f} G multiply-adds;\nthe maps come out of {norms}'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--arch', default='t0', help='variant; default: t0')
    parser.add_argument('--out-dir', type=Path, default=IMAGES, help='default: docs/images')
    args = parser.parse_args()
    block = fasternet_mm.FasterNet(args.arch).eval().requires_grad_(False).stages[0].blocks[0]
    parts = gather_network(args.arch)
    figures = {
        'block': draw_block(gather_block(block), block.spatial_mixing.dim_conv),
        'network': draw_network(parts, f'FasterNet-{args.arch.upper()} as a backbone'),
        'pconv': draw_pconv(block, parts[0].shape[-1]),
    }
    for name, figure in figures.items():
        write_figure(args.out_dir / f'{name}.png', figure, transparent=True)
        print(args.out_dir / f'{name}.png')


if __name__ == '__main__':
    main()
