# SPDX-License-Identifier: Apache-2.0
"""Rebuild MobileFaceNet, IResNets and the ArcFace head in PyTorch, layer by layer, as baselines.

The docstrings of nets/mobilefacenet.py, nets/iresnet.py and nets/embedding.py explain the layers.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

MOBILE_STAGES = ((64, 128, 128, 4), (128, 256, 256, 6), (128, 512, 256, 2))
IRESNET_UNITS = {"iresnet18": (2, 2, 2, 2), "iresnet50": (3, 4, 14, 3)}


def conv_norm(
    before: int,
    after: int,
    kernel: int = 1,
    stride: int = 1,
    padding: int = 0,
    *,
    groups: int = 1,
    act: bool = False,
) -> nn.Module:
    """Build a convolution, batch normalisation and, with ``act``, PReLU."""
    layers = [nn.Conv2d(before, after, kernel, stride, padding, groups=groups, bias=False)]
    return nn.Sequential(*layers, nn.BatchNorm2d(after), *([nn.PReLU(after)] if act else []))


def fixed_scale_norm(size: int) -> nn.BatchNorm1d:
    """Build a batch normalisation whose scale is fixed at 1."""
    norm = nn.BatchNorm1d(size)
    norm.weight.requires_grad_(False)
    return norm


class Bottleneck(nn.Module):
    """Inverted residual block: 1x1 expansion, depthwise 3x3, 1x1 projection."""

    def __init__(self, before: int, after: int, expanded: int, stride: int = 1) -> None:
        super().__init__()
        self.residual = stride == 1 and before == after
        self.layers = nn.Sequential(
            conv_norm(before, expanded, act=True),
            conv_norm(expanded, expanded, 3, stride, 1, groups=expanded, act=True),
            conv_norm(expanded, after),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layers(x)
        return x + y if self.residual else y


def mobilefacenet(width: float = 1.0, embedding_size: int = 128) -> nn.Module:
    """Build MobileFaceNet with the layers of nets/mobilefacenet.py."""

    def scaled(channels: int) -> int:
        return max(8, int(channels * width / 8 + 0.5) * 8)

    before, last = scaled(64), scaled(512)
    layers = [
        conv_norm(3, before, 3, 2, 1, act=True),
        conv_norm(before, before, 3, 1, 1, groups=before, act=True),
    ]
    for channels, first, rest, repeats in MOBILE_STAGES:
        after = scaled(channels)
        layers.append(Bottleneck(before, after, scaled(first), 2))
        layers += [Bottleneck(after, after, scaled(rest)) for _ in range(repeats)]
        before = after
    return nn.Sequential(
        *layers,
        conv_norm(before, last, act=True),
        conv_norm(last, last, 7, groups=last),
        nn.Flatten(),
        nn.Linear(last, embedding_size, bias=False),
        fixed_scale_norm(embedding_size),
    )


class IRUnit(nn.Module):
    """Residual unit of IResNet: BN, 3x3 conv, BN, PReLU, 3x3 conv, BN, plus the shortcut."""

    def __init__(self, before: int, after: int, stride: int, project: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(before),
            conv_norm(before, after, 3, 1, 1, act=True),
            conv_norm(after, after, 3, stride, 1),
        )
        self.shortcut = conv_norm(before, after, 1, stride) if project else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) + self.shortcut(x)


def iresnet(name: str, embedding_size: int = 512) -> nn.Module:
    """Build the IResNet of this name with the layers of nets/iresnet.py."""
    before = 64
    layers: list[nn.Module] = [conv_norm(3, before, 3, 1, 1, act=True)]
    for repeats, after in zip(IRESNET_UNITS[name], (64, 128, 256, 512), strict=True):
        layers.append(IRUnit(before, after, 2, True))
        layers += [IRUnit(after, after, 1, False) for _ in range(repeats - 1)]
        before = after
    return nn.Sequential(
        *layers,
        nn.BatchNorm2d(before),
        nn.Flatten(),
        nn.Linear(before * 49, embedding_size, bias=False),
        fixed_scale_norm(embedding_size),
    )


class ArcFace(nn.Module):
    """ArcFace head with the formula of InsightFace's PyTorch code; the output is the mean loss.

    The head replaces the cosine of the true class by the cosine with the margin; the gradient
    ignores this replacement.  InsightFace's code computes arccos and cos for all classes; this head
    computes them only for the true class, which is faster.
    """

    def __init__(self, num_classes: int, embedding_size: int, margin: float, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_size))
        nn.init.normal_(self.weight, std=0.01)
        self.margin, self.scale = margin, scale

    def forward(self, embedding: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        unit = functional.normalize(embedding)
        logits = functional.linear(unit, functional.normalize(self.weight)).clamp(-1, 1)  # (B, C)
        row = torch.arange(len(label))
        with torch.no_grad():
            cosine = logits[row, label]
            psi = torch.cos(cosine.arccos() + self.margin)
            beyond = cosine - self.margin * math.sin(self.margin)
            logits[row, label] = torch.where(cosine > -math.cos(self.margin), psi, beyond)
        return functional.cross_entropy(logits * self.scale, label)
