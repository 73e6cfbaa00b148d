# SPDX-License-Identifier: Apache-2.0
"""What DALI is asked for in each decode mode; no GPU is needed."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest

from launch.config.sections import DataConfig
from pipeline.decode import dali
from pipeline.decode.decode_paths import PATHS, jpeg_hardware_notice
from pipeline.sampling.augmentation import Augmentation

ALL = Augmentation(color_jitter=0.1, jpeg_quality=(2, 20), cut_out=9, shift=3, grey=0.1)
# Operators that change images; choices are numbers, which stay on the CPU.
CHANGES = ("JpegCompressionDistortion", "Mean", "CoordTransform", "Slice", "Erase")
CHANGES = (*CHANGES, "CropMirrorNormalize")


def test_the_configuration_has_every_path():
    assert get_args(get_type_hints(DataConfig)["decode"]) == ("auto", *PATHS)


def test_whether_jpeg_hardware_can_be_used_is_said():
    def missing(name):
        raise OSError(f"{name}: no such file")

    sentence = jpeg_hardware_notice(missing)
    assert sentence.startswith("decode: no JPEG hardware")
    assert "got libnvcuvid.so.1: no such file; in a container set NVIDIA_DRIVER" in sentence
    loaded: list[str] = []
    assert "is used where the GPU has it" in jpeg_hardware_notice(loaded.append)
    assert loaded == ["libnvcuvid.so.1"]


def traced(decode, device_id, source="jpeg", finish="float"):
    """Return what the decoder of a graph is asked for, and {operator: device}; builds nothing."""
    asked: list[dict] = []
    decoder = dali.fn.decoders.image

    def image(data, **options):
        asked.append(options)
        return decoder(data, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dali.fn.decoders, "image", image)
        pipe = dali._decode_graph(
            *(source, decode, finish, ALL),
            to_gpu=device_id is not None and finish == "float",
            **{"batch_size": 4, "num_threads": 1, "device_id": device_id},
        )
        # DALI refuses arguments that the schema of the operator does not have.
        pipe._build_graph()
    nodes = {op.name.strip("_").rsplit("_", 1)[0]: op.outputs[0].device for op in pipe._ops}
    return asked, nodes


@pytest.mark.parametrize("decode", [name for name in PATHS if name.startswith("mixed")])
def test_graphs_of_paths_on_the_gpu(decode):
    asked, nodes = traced(decode, 0)
    (options,) = asked
    path = PATHS[decode]
    assert options["device"] == "mixed"
    assert options["hw_decoder_load"] == path.hw_decoder_load
    assert options["hybrid_huffman_threshold"] == path.hybrid_huffman_threshold
    assert {nodes[name] for name in ("Image", *CHANGES)} == {"gpu"}


@pytest.mark.parametrize("source", ["jpeg", "pixels"])
def test_what_the_cpu_decodes_goes_to_the_gpu_as_bytes(source):
    asked, nodes = traced("cpu", 0, source)
    assert [options["device"] for options in asked] == ["cpu"] * (source == "jpeg")
    assert nodes.get("Image", "cpu") == "cpu"
    assert {nodes[name] for name in CHANGES} == {"gpu"}


@pytest.mark.parametrize("finish", ["float", "bytes"])
def test_without_a_gpu_everything_is_on_the_cpu(finish):
    asked, nodes = traced("cpu", None, finish=finish)
    assert [sorted(options) for options in asked] == [["device", "output_type"]]
    assert set(nodes.values()) == {"cpu"}
