# SPDX-License-Identifier: Apache-2.0
"""Models of the commands."""

from __future__ import annotations

import json
from types import SimpleNamespace

import mxnet as mx
import numpy as np

from evaluation.commands.models import build_net_on, read_model


def test_the_net_uses_operators_that_suit_its_device(checkpoint, monkeypatch):
    current = mx.context.current_context

    def stand_in():  # the second CPU plays a GPU
        found = current()
        return SimpleNamespace(device_type="gpu") if found == mx.cpu(1) else found

    monkeypatch.setattr("mxnet.context.current_context", stand_in)
    image = np.random.default_rng(0).normal(size=(2, 3, 112, 112))
    found = []
    for ctx, is_cpu in ((mx.cpu(), True), (mx.cpu(1), False)):
        net = build_net_on(read_model(str(checkpoint)), ctx)
        found.append(net(mx.nd.array(image, ctx=ctx)).asnumpy())
        traced = json.loads(net._cached_graph[1].tojson())["nodes"]
        operators = {node["op"] for node in traced}
        assert ("face_frozen_depthwise" in operators) == is_cpu
        assert ("LeakyReLU" in operators) == (not is_cpu)
    np.testing.assert_allclose(*found, rtol=0, atol=1e-5 * np.abs(found[0]).max())
