"""Focal loss (https://arxiv.org/abs/1708.02002).

``input`` is ``(N, C)``, ``target`` ``(N,)`` with C for background, and ``weight`` ``(C,)`` or empty.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from .kernels import full_precision


def _sigmoid_focal_loss(input: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    classes = torch.arange(input.shape[1], device=input.device)
    one_hot = (target[:, None] == classes).to(input.dtype)
    loss = torchvision.ops.sigmoid_focal_loss(input, one_hot, alpha=alpha, gamma=gamma)
    if weight.numel():
        loss = loss * F.pad(weight, (0, 1), value=1.0)[target][:, None]  # background counts once
    return loss


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    output.copy_(_sigmoid_focal_loss(full_precision(input), target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    with torch.enable_grad():
        x = full_precision(input).detach().requires_grad_()
        loss = _sigmoid_focal_loss(x, target, weight, gamma, alpha).sum()
    grad_input.copy_(torch.autograd.grad(loss, x)[0])
