# SPDX-License-Identifier: Apache-2.0
"""Counts of parameters and multiply-accumulates, compared with arithmetic by hand."""

from __future__ import annotations

from mxnet.gluon import nn

from nets.blocks import ConvNorm, ConvNormPReLU
from nets.layer_table import list_layers, measure
from tools.net_size import main


def small_net() -> nn.HybridSequential:
    net = nn.HybridSequential()
    net.add(
        ConvNormPReLU(3, 8, 3, 2, 1),  # to 8 x 5 x 4
        ConvNorm(8, 8, 3, 1, 1, groups=8),
        nn.Conv2D(4, (1, 3), in_channels=8),  # with a bias, to 4 x 5 x 2
        nn.Dense(6, in_units=4 * 5 * 2),
    )
    return net


def test_macs_are_weights_times_output_pixels():
    expected = 27 * 8 * 20 + 9 * 8 * 20 + 3 * 8 * 4 * 10 + 40 * 6
    assert sum(layer.macs for layer in list_layers(small_net(), (10, 8))) == expected


def test_parameters_include_slopes_once_and_no_running_statistics():
    net = small_net()
    size = measure(net, (10, 8))
    convolution = 27 * 8 + 9 * 8 + 3 * 8 * 4 + 4
    assert size.parameters == convolution + 4 * 8 + 8 + 40 * 6 + 6  # gamma and beta twice; alpha
    assert size.running_statistics == 4 * 8
    assert size.mebibytes == 4 * (size.parameters + 32) / 2**20
    net.initialize()
    assert measure(net, (10, 8)) == size


def test_the_table_has_the_requested_nets(capsys):
    assert main(["mobilefacenet", "iresnet18"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["net", "mobilefacenet", "iresnet18"]
    assert lines[1].split()[1:] == ["1.003", "M", "0.221", "G", "3.9", "MiB"]


def test_an_unknown_net_is_refused_in_one_sentence(capsys):
    assert main(["iresnet51"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("net_size: net.name: unknown net 'iresnet51'; did you mean 'iresnet5")
    assert error.count("\n") == 1
