# SPDX-License-Identifier: Apache-2.0
"""Choice of the operators: for training, inference, export, GPUs, and without a compiler."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest

import ops
from nets import build_net
from ops.build import LEVELS, _toolkit, library
from ops.mode_graphs import FUSED, TRAINING

ROOT = Path(__file__).resolve().parents[2]


def small_net(seed=1, size=(112, 112)):
    mx.random.seed(seed)
    net = build_net("mobilefacenet", size, width=0.125, embedding_size=16)
    net.initialize()
    return net


def train(net, steps=4, batch=6, size=(112, 112)):
    images = mx.nd.array(np.random.default_rng(0).normal(size=(batch, 3, *size)))
    target = mx.nd.array(np.random.default_rng(1).normal(size=(batch, 16)))
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.002}, kvstore=None)
    losses = []
    for _ in range(steps):
        with mx.autograd.record():
            loss = ((net(images) - target) ** 2).mean()
        loss.backward()
        trainer.step(1)
        losses.append(loss.asscalar())
    return images, losses


def test_training_and_inference_have_separate_graphs():
    net, plain = small_net(), small_net()
    net.hybridize(static_alloc=True, static_shape=True)
    images, _ = train(net)
    inferred = net(images).asnumpy()
    train(net, steps=1)  # back to training, then to inference again
    assert not np.allclose(net(images).asnumpy(), inferred, atol=1e-6)
    symbols = {mode: graphs[0][1].tojson() for mode, graphs in net._graphs.items()}
    assert "face_batch_norm" in symbols[TRAINING] and "face_depthwise_norm" in symbols[TRAINING]
    assert "face_frozen_depthwise" in symbols[FUSED] and "face_batch" not in symbols[FUSED]
    # A network without fused operators gives the same inference results for these weights.
    for name, parameter in net._collect_params_with_prefix().items():
        plain._collect_params_with_prefix()[name].set_data(parameter.data())
    np.testing.assert_allclose(plain(images).asnumpy(), net(images).asnumpy(), atol=1e-4)


def test_exports_contain_no_fused_operator(tmp_path):
    net = small_net()
    net.hybridize()
    images, _ = train(net)
    expected = net(images).asnumpy()
    train(net, steps=1)
    net.export(str(tmp_path / "net"))
    graph = json.loads((tmp_path / "net-symbol.json").read_text())
    assert {node["op"] for node in graph["nodes"]} & {"Convolution", "BatchNorm"}
    assert not [node["op"] for node in graph["nodes"] if "face" in node["op"]]
    loaded = mx.gluon.SymbolBlock.imports(
        str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params")
    )
    assert loaded(images).shape == expected.shape


TRAIN_SMALL_NET = """
import sys
import numpy as np
import ops
from tests.ops.test_choice import small_net, train
sentence = ops.use(sys.argv[1])
net = small_net()
net.hybridize(static_alloc=True, static_shape=True)
images, losses = train(net, steps=6)
np.savez(sys.argv[2], losses=losses, y=net(images).asnumpy())
print(sentence)
"""


def results(tmp_path, choice, **environment):
    out = tmp_path / f"{choice}-{len(list(tmp_path.iterdir()))}.npz"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TRAIN_SMALL_NET, choice, str(out)],
        # A fixed number of threads: it determines the rounding errors of the plain operators, which
        # training amplifies.
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "2",
            "OMP_WAIT_POLICY": "passive",
            **environment,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with np.load(out) as found:
        return done.stdout.strip(), found["losses"], found["y"]


def test_every_instruction_level_trains_like_the_plain_operators(tmp_path):
    sentence, losses, y = results(tmp_path, "plain")
    assert sentence == ""
    assert losses[-1] < losses[0]
    used = set()
    for level in LEVELS:
        sentence, other, other_y = results(tmp_path, "native", FACE_OPS_LEVEL=level)
        used.add(sentence)
        assert np.abs(other - losses).max() < 1e-3 * losses.max()
        assert np.abs(other_y - y).max() < 1e-2 * np.abs(y).max()
    assert "operators native (baseline)" in used


@pytest.mark.parametrize("size", [(112, 96), (64, 64), (33, 49), (17, 9)], ids=str)
def test_both_choices_train_alike_on_images_of_other_sizes(size):
    found = {}
    for choice in ("plain", "native"):
        ops.use(choice)
        net = small_net(size=size)
        net.hybridize(static_alloc=True, static_shape=True)
        images, losses = train(net, size=size)
        found[choice] = np.array(losses), net(images).asnumpy()
        traced = net._graphs[TRAINING][0][1].tojson()
        assert ("face_depthwise_norm" in traced) == (choice == "native")
    for plain, native in zip(found["plain"], found["native"]):
        assert np.abs(native - plain).max() < 1e-2 * np.abs(plain).max()


PRINT_GRADIENT_ERRORS = """
import mxnet as mx
import numpy as np
import ops
from tests.ops.test_choice import small_net

images = np.random.default_rng(2).normal(size=(8, 3, 112, 112))
weights = np.random.default_rng(3).normal(size=(8, 16))
net = small_net()

def gradients(choice, dtype):
    ops.use(choice)
    net.cast(dtype)
    with mx.autograd.record():
        embedding = net(mx.nd.array(images, dtype=dtype))
        total = (embedding * mx.nd.array(weights, dtype=dtype)).sum()
    total.backward()
    found = net._collect_params_with_prefix().items()
    return np.concatenate(
        [p.grad().asnumpy().ravel() for _, p in found if p.grad_req != "null"]
    ).astype(np.float64)

true = gradients("native", "float64")  # test_layers.py checks it to 1e-9
for choice in ("native", "plain"):
    print(np.linalg.norm(gradients(choice, "float32") - true) / np.linalg.norm(true))
"""


def test_fused_gradients_of_a_net_are_more_accurate_than_plain_ones():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PRINT_GRADIENT_ERRORS],
        # One thread: with many threads the plain operators sum in parts and round less.
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    native, plain = map(float, done.stdout.split())
    assert native < 1e-2 and native < plain


def test_grad_req_add_is_refused():
    net = small_net()
    net.collect_params().setattr("grad_req", "add")
    with pytest.raises(ValueError, match="cannot add to a gradient, got grad_req='add' of mobile"):
        train(net)


def pointwise_groups(symbol):
    """Return the 1x1 convolutions of a graph that have as many groups as channels."""
    nodes = json.loads(symbol.tojson())["nodes"]
    found = [node["attrs"] for node in nodes if node["op"] == "Convolution"]
    assert found
    return [
        attributes
        for attributes in found
        if attributes["kernel"] == "(1, 1)" and attributes.get("num_group", "1") != "1"
    ]


@pytest.mark.parametrize("name", ["mobilefacenet", "iresnet18"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_a_graph_for_a_gpu_computes_prelu_without_convolutions(name, training):
    net, data = build_net(name), mx.sym.var("data")

    def traced():
        with mx.autograd.record(train_mode=training):
            return net(data)

    ops.use("plain", "cpu")
    assert len(pointwise_groups(traced())) == 2 * len(slopes(net))
    with mx.gpu(0):  # the current context is enough to choose the GPU form
        assert not pointwise_groups(traced())
    for choice in ("plain", "auto"):
        assert ops.use(choice, "gpu") == "" and not ops.fused()
        symbol = traced()
        assert not pointwise_groups(symbol)
        nodes = json.loads(symbol.tojson())["nodes"]
        assert [node["op"] for node in nodes].count("LeakyReLU") == len(slopes(net))
        # Only the convolutions of the network itself are depthwise.
        for node in nodes:
            attributes = node.get("attrs", {})
            if attributes.get("num_group", "1") != "1":
                assert attributes["kernel"] in ("(3, 3)", "(7, 7)"), attributes
    ops.use("plain", "cpu")
    assert pointwise_groups(traced())


def slopes(net):
    return [name for name in net.collect_params() if name.endswith("alpha")]


def test_inference_on_a_gpu_with_fused_operators_uses_plain_gpu_operators(monkeypatch, tmp_path):
    use_gpu_library(monkeypatch, tmp_path)
    assert ops.use("native", "gpu", 0) == "operators native (gpu)"
    symbol = build_net("mobilefacenet")(mx.sym.var("data"))
    assert "face_" not in symbol.tojson() and not pointwise_groups(symbol)


def use_gpu_library(monkeypatch, tmp_path):
    """Install a library stand-in whose operators run only on GPU 0; MXNet does not load it."""
    source, library = tmp_path / "library.c", tmp_path / "library.so"
    source.write_text(
        'const char* face_ops_level() { return "gpu"; }\n'
        "const char* face_ops_gpu_fault(int device) {\n"
        '    return device ? "no kernel image is available" : 0;\n'
        "}\n"
    )
    command = ["g++", "-x", "c", "-shared", "-fPIC", "-o", library, source]
    subprocess.run(command, check=True)
    monkeypatch.setattr("ops.build.compile_library", lambda: library)
    monkeypatch.setattr("ops.choice.LoaderKernels", lambda compiled: None)
    monkeypatch.setattr("ops.choice.state.loaded", True)


def test_a_gpu_that_cannot_run_the_operators_is_refused(monkeypatch, tmp_path):
    use_gpu_library(monkeypatch, tmp_path)
    with pytest.raises(ops.OperatorError) as caught:
        ops.use("native", "gpu", 3)
    assert str(caught.value) == (
        "run.operators: GPU 3 cannot run the fused operators, got: no kernel image is available; "
        "use run.operators=plain"
    )
    assert not ops.fused() and ops.for_gpu()


@pytest.fixture
def second_cpu_is_a_gpu(monkeypatch):
    """Make mx.cpu(1) look like a GPU."""
    current = mx.context.current_context

    def stand_in():
        found = current()
        return SimpleNamespace(device_type="gpu") if found == mx.cpu(1) else found

    monkeypatch.setattr("mxnet.context.current_context", stand_in)


def test_the_device_of_the_arrays_decides_without_a_call_of_use(second_cpu_is_a_gpu):
    ops.use("plain")  # as at the start of a process
    image = np.random.default_rng(0).normal(size=(2, 3, 112, 112))
    forms, embeddings = [], []
    for ctx in (mx.cpu(), mx.cpu(1)):
        net = small_net()
        net.collect_params().reset_ctx(ctx)
        net.hybridize(static_alloc=True, static_shape=True)
        embeddings.append(net(mx.nd.array(image, ctx=ctx)).asnumpy())
        forms.append(bool(pointwise_groups(net._cached_graph[1])))
    assert forms == [True, False]
    np.testing.assert_allclose(*embeddings, atol=1e-5)


def test_fused_inference_is_for_arrays_on_a_cpu(second_cpu_is_a_gpu):
    image = np.random.default_rng(0).normal(size=(2, 3, 112, 112))
    net = small_net()
    net.hybridize(static_alloc=True, static_shape=True)
    for ctx, is_fused in ((mx.cpu(), True), (mx.cpu(1), False), (mx.cpu(), True)):
        net.collect_params().reset_ctx(ctx)
        net(mx.nd.array(image, ctx=ctx)).wait_to_read()
        assert ("face_frozen" in net._cached_graph[1].tojson()) == is_fused


def test_a_net_that_moves_to_a_gpu_is_traced_again(second_cpu_is_a_gpu, tmp_path):
    ops.use("plain")
    net, image = small_net(), np.random.default_rng(0).normal(size=(2, 3, 112, 112))
    net.hybridize(static_alloc=True, static_shape=True)
    before = net(mx.nd.array(image)).asnumpy()
    for ctx, convolutions in ((mx.cpu(1), False), (mx.cpu(), True)):
        net.collect_params().reset_ctx(ctx)
        after = net(mx.nd.array(image, ctx=ctx)).asnumpy()
        assert bool(pointwise_groups(net._cached_graph[1])) == convolutions
        np.testing.assert_allclose(after, before, atol=1e-5)
        net.export(str(tmp_path / "net"))  # needs a traced graph of inference


def test_an_unknown_choice_is_refused():
    with pytest.raises(ValueError) as caught:
        ops.use("fast")
    assert str(caught.value) == ("run.operators: must be one of auto, native, plain, got 'fast'")


def test_gpu_operators_are_refused_if_the_library_has_none():
    with pytest.raises(ValueError) as caught:
        ops.use("native", "gpu")
    assert str(caught.value) == (
        "run.operators: the library must contain GPU operators, got one compiled without nvcc, "
        "or for an MXNet without CUDA; use run.operators=plain"
    )
    assert not ops.fused()


NO_COMPILER = """
import sys
from pathlib import Path
import ops
from ops import build
build.library = lambda: Path(sys.argv[1]) / "none.so"
print(ops.use("auto"))
print(ops.fused())
try:
    ops.use("native")
except ops.OperatorError as error:
    print(error)
print(repr(ops.use("auto", "gpu")), ops.fused())
"""


def test_without_a_compiler_the_operators_are_plain(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", NO_COMPILER, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "CXX": "no-such-compiler"},
        capture_output=True,
        text=True,
    )
    why = (
        "ops: cannot find the C++ compiler, got 'no-such-compiler' (environment variable CXX, by "
        "default g++); install g++ (apt-get install g++) and run python -m ops"
    )
    on_gpus = f"native JPEG decoder not compiled, so DALI decodes all images: {why}"
    assert done.stdout.splitlines() == [
        f"fused operators not compiled, so the slower plain operators are used: {why}",
        "False",
        why,
        f"{on_gpus!r} False",
    ], done.stderr


def test_a_library_with_gpu_operators_is_used_without_nvcc(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    plain = library()
    assert plain.parent == tmp_path / "lib" / "face_ops" and plain.suffix == ".so"
    monkeypatch.setattr("ops.build._toolkit", lambda: ("nvcc", (11, 8), "g++"))
    with_gpu = library()
    assert with_gpu.name == f"{plain.stem}-gpu.so"
    with_gpu.parent.mkdir(parents=True)
    with_gpu.touch()
    monkeypatch.setattr("ops.build._toolkit", lambda: None)
    assert library() == with_gpu


def test_a_process_without_mxnet_does_not_look_for_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setattr("ops.build._toolkit", lambda: ("nvcc", (11, 8), "g++"))
    plain = tmp_path / "lib" / "face_ops" / library().name.replace("-gpu", "")
    plain.parent.mkdir(parents=True)
    plain.touch()
    assert library().name.endswith("-gpu.so")
    monkeypatch.delitem(sys.modules, "mxnet")
    assert library() == plain


def test_mxnet_without_cuda_needs_no_search_for_nvcc(monkeypatch):
    monkeypatch.setattr("ops.native.gpu.nvcc.executables", lambda: ["nvcc"])
    monkeypatch.setattr("ops.native.gpu.nvcc.find", lambda: 1 / 0)
    _toolkit.cache_clear()
    assert _toolkit() is None


def test_instruction_levels_share_no_functions(tmp_path):
    # The linker keeps one copy of a shared function, possibly one with unsupported instructions.
    found = subprocess.run(
        ["nm", "-C", str(library())], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    weak = [line for line in found if re.search(r" [WVu] ", line) and "face::" in line]
    levels = [re.search(r"face::(\w+)::\w+", line)[1] for line in weak]
    assert set(levels) == set(LEVELS)
