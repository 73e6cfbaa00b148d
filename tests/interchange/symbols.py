# SPDX-License-Identifier: Apache-2.0
"""Small networks of other projects: MXNet symbols in InsightFace's structure, random weights."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np

from nets.mobilefacenet import BLOCKS, LAST_CHANNELS, STAGES, STEM_CHANNELS, scale_channels

SIZE = (32, 32)
WIDTH = 0.125
EMBEDDING = 16


def conv(data, name, channels, kernel=(1, 1), stride=1, pad=0, groups=1, act=True):
    same = {"stride": (stride, stride), "pad": (pad, pad), "num_group": groups}
    y = mx.sym.Convolution(
        data, kernel=kernel, num_filter=channels, no_bias=True, name=f"{name}_conv2d", **same
    )
    y = mx.sym.BatchNorm(y, fix_gamma=False, name=f"{name}_batchnorm")  # epsilon 1e-3
    return mx.sym.LeakyReLU(y, act_type="prelu", name=f"{name}_relu") if act else y


def bottleneck(data, name, channels, expanded, stride):
    y = conv(data, f"{name}_conv_sep", expanded)
    y = conv(y, f"{name}_conv_dw", expanded, (3, 3), stride, 1, expanded)
    return conv(y, f"{name}_conv_proj", channels, act=False)


def mobile_symbol(fix_gamma=True, scaling=True, act=None):
    """Return a MobileFaceNet in the structure of InsightFace's y1: GDC, bias before fc1."""
    y = mx.sym.Variable("data")
    if scaling:
        y = (y - 127.5) * 0.0078125
    stem = scale_channels(STEM_CHANNELS, WIDTH)
    y = conv(y, "conv_1", stem, (3, 3), 2, 1)
    y = conv(y, "conv_2_dw", stem, (3, 3), 1, 1, stem)
    for number, (stage, repeats) in enumerate(zip(STAGES, BLOCKS[1:])):
        out, first, rest = (scale_channels(n, WIDTH) for n in stage)
        y = bottleneck(y, f"dconv_{number}", out, first, 2)
        for block in range(repeats):
            y = bottleneck(y, f"res_{number}_block{block}", out, rest, 1) + y
    last = scale_channels(LAST_CHANNELS, WIDTH)
    y = conv(y, "conv_6sep", last)
    if act:
        y = act(y)
    y = conv(y, "conv_6dw", last, (2, 2), groups=last, act=False)
    y = mx.sym.FullyConnected(y, num_hidden=EMBEDDING, name="pre_fc1")
    return mx.sym.BatchNorm(y, fix_gamma=fix_gamma, eps=2e-5, name="fc1")


def random_arrays(symbol, seed=0, **shapes):
    """Return random values of all variables but the images, by name."""
    random = np.random.default_rng(seed)
    given, _, states = symbol.infer_shape_partial(data=(1, 3, *SIZE), **shapes)
    names = [*symbol.list_arguments(), *symbol.list_auxiliary_states()]
    arrays = {}
    for name, shape in zip(names, [*given, *states]):
        if name == "data" or name.endswith("label"):
            continue
        if len(shape) > 1:
            values = random.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith(("gamma", "var")):
            values = random.uniform(0.5, 1.5, shape)
        else:
            values = random.normal(size=shape) * 0.1
        arrays[name] = values.astype(np.float32)
    return arrays


def save(prefix, symbol, arrays, text=None):
    """Save a symbol and its values as MXNet's Module does."""
    states = symbol.list_auxiliary_states()
    prefix.with_name(f"{prefix.name}-symbol.json").write_text(text or symbol.tojson())
    mx.nd.save(
        f"{prefix}-0000.params",
        {f"{'aux' if n in states else 'arg'}:{n}": mx.nd.array(a) for n, a in arrays.items()},
    )
    return prefix


def pixels(count=4, size=SIZE):
    return np.random.default_rng(5).integers(0, 256, (count, 3, *size)).astype(np.float32)


def normalised(embeddings):
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def compute(prefix, images):
    """Compute normalised embeddings of saved files with MXNet's executor.

    One more image gives the batch a size that no other network of the process has: MXNet would
    reuse a batch normalisation of (B, C, 1, 1) for (B, C), a segmentation fault.
    """
    symbol, values, states = mx.model.load_checkpoint(str(prefix), 0)
    symbol = symbol.get_internals()["fc1_output"]
    values = {name: values[name] for name in symbol.list_arguments() if name != "data"}
    values["data"] = mx.nd.array(np.concatenate([images, images[:1]]))
    states = {name: states[name] for name in symbol.list_auxiliary_states()}
    executor = symbol.bind(mx.cpu(), values, aux_states=states, grad_req="null")
    return normalised(executor.forward(is_train=False)[0].asnumpy()[:-1])


def edited(symbol, change):
    """Return the JSON text of a symbol after ``change(content)`` has edited the content."""
    content = json.loads(symbol.tojson())
    change(content)
    return json.dumps(content)
