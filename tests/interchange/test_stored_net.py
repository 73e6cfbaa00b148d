# SPDX-License-Identifier: Apache-2.0
"""Networks with the weights of stored models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from interchange import InterchangeError
from interchange.open_model import open_model
from interchange.stored_net import build_stored_net
from tests.runs import save_run


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return open_model(save_run(tmp_path_factory.mktemp("run")))


def test_the_network_has_the_stored_weights(model):
    own = build_stored_net(model)._collect_params_with_prefix()
    np.testing.assert_equal(
        {name: parameter.data().asnumpy() for name, parameter in own.items()},
        dict(model.parameters),
    )


def test_weights_that_do_not_fit_are_refused(model):
    weights = dict(model.parameters)
    first = min(weights)
    for changed, problem in [
        ({n: v for n, v in weights.items() if n != first}, f"the weight '{first}' is missing, got"),
        ({**weights, "zz": weights[first]}, "the weight 'zz' does not belong to mobilefacenet"),
        ({**weights, first: np.zeros((1, 2))}, rf"the weight '{first}' must have shape .*\(1, 2\)"),
    ]:
        with pytest.raises(InterchangeError, match=problem):
            build_stored_net(replace(model, parameters=changed))
