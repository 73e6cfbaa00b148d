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


def test_a_cpu_without_fused_operators_is_reported_once(checkpoint, monkeypatch, capsys):
    monkeypatch.setattr("ops.use", lambda *device: "operators: not built, got no library; run make")
    model = read_model(str(checkpoint))
    image = mx.nd.ones((1, 3, 112, 112))
    quiet, loud = (build_net_on(model, mx.cpu(), quiet=quiet) for quiet in (True, False))
    assert capsys.readouterr().err == (
        "evaluation: operators: not built, got no library; run make\n"
    )
    np.testing.assert_array_equal(quiet(image).asnumpy(), loud(image).asnumpy())
