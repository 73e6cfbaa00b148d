# SPDX-License-Identifier: Apache-2.0
"""Layer table: products of matrices, linear layers for tokens, names, and the command."""

from __future__ import annotations

import pytest

from nets import build_net
from nets.__main__ import main
from nets.layer_table import list_layers


def test_linear_layers_count_for_each_token_and_products_for_each_pair():
    layers = {layer.name: layer for layer in list_layers(build_net("vit_t", (18, 27), depth=1),
                                                         (18, 27))}  # fmt: skip
    assert layers["blocks.0.attention.qkv"].macs == 6 * 256 * 768
    assert layers["features"].macs == 6 * 256 * 256
    products = [layer.macs for layer in layers.values() if layer.operator == "_linalg_gemm2"]
    assert products == [6 * 6 * 256] * 2
    assert layers["position"].parameters == 6 * 256
    assert layers["patches"].activation_bytes == 4 * 256 * 6


def test_a_prelu_is_one_layer():
    layers = list_layers(build_net("mobilefacenet", width=0.125), (112, 112))
    prelus = [layer for layer in layers if layer.operator == "LeakyReLU"]
    assert len(prelus) == 33 and prelus[0].name == "stem.act" and prelus[0].parameters == 8


def test_the_command_prints_layers_and_sums(capsys):
    assert main(["describe", "ghostnet", "width=0.25", "net.output=FC"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("layer ") and "trunk.0.conv" in out
    assert "ghostnet with width=0.25, embedding_size=512, output=FC, dropout=0.0" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["mobilefacenets"],
            "error: net.name: must be one of the known names, got 'mo",
        ),
        (["dpn68", "width=2"], "error: net.width: unknown key for 'dpn68'; known: embedding_size"),
        (["ghostnet", "width=a"], "error: net.width: must be a number above 0 up to 4, got 'a'"),
        (["ghostnet", "--image-size", "9"], "error: --image-size: must be HEIGHTxWIDTH"),
        (["ghostnet", "--image-size", "8x9"], "error: net.name: 'ghostnet' needs images of at"),
    ],
)
def test_a_wrong_command_gets_one_sentence(arguments, sentence, capsys):
    assert main(["describe", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(sentence) and error.count("\n") == 1
