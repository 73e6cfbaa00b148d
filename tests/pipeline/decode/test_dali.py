# SPDX-License-Identifier: Apache-2.0
"""Arguments and devices of DALI's operators, and the queue of batches.  No GPU is needed."""

from __future__ import annotations

from typing import get_args, get_type_hints

import numpy as np
import pytest

from launch.config.sections import DataConfig
from pipeline.decode import dali
from pipeline.decode.dali import (
    MEAN,
    PATHS,
    STD,
    DALIDataType,
    DALIImageType,
    DecodeGraph,
    Pipeline,
    PipelineQueue,
    augment_inputs,
    decoder_options,
    external_input,
    find_faulty_image,
    jpeg_hardware_notice,
    pipeline_def,
    to_planes,
)
from pipeline.sampling.augmentation import (
    CUT_OUT_VALUE,
    NO_AUGMENTATION,
    Augmentation,
    AugmentParams,
    choose_params,
)

ALL = Augmentation(color_jitter=0.1, jpeg_quality=(2, 20), cut_out=9, shift=3, grey=0.1)
# Operators on images.  The parameters of the augmentation stay on the CPU.
CHANGES = ("JpegCompressionDistortion", "Mean", "CoordTransform", "Slice", "Erase")
CHANGES = (*CHANGES, "CropMirrorNormalize")


def test_the_configuration_has_every_path():
    assert get_args(get_type_hints(DataConfig)["decode"]) == ("auto", *PATHS)


def test_the_notice_says_whether_jpeg_hardware_can_be_used():
    def missing(name):
        raise OSError(f"{name}: no such file")

    sentence = jpeg_hardware_notice(missing)
    assert sentence.startswith("decode: nvJPEG cannot use a hardware JPEG decoder")
    assert "got libnvcuvid.so.1: no such file; in a container set NVIDIA_DRIVER" in sentence
    loaded: list[str] = []
    assert "so nvJPEG can use JPEG hardware" in jpeg_hardware_notice(loaded.append)
    assert loaded == ["libnvcuvid.so.1"]


def traced(decode, device_id, source="jpeg", finish="float"):
    """Return the arguments of a graph's decoder, and {operator: device}, without a build."""
    asked: list[dict] = []
    decoder = dali.fn.decoders.image

    def image(data, **options):
        asked.append(options)
        return decoder(data, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dali.fn.decoders, "image", image)
        pipe = dali._decode_graph(
            source, decode, finish, ALL, batch_size=4, num_threads=1, device_id=device_id
        )
        # DALI refuses arguments that are not in the schema of the operator.
        pipe._build_graph()
    nodes = {op.name.strip("_").rsplit("_", 1)[0]: op.outputs[0].device for op in pipe._ops}
    return asked, nodes


@pytest.mark.parametrize("decode", [name for name in PATHS if name.startswith("mixed")])
def test_a_mixed_mode_decodes_and_augments_on_the_gpu(decode):
    asked, nodes = traced(decode, 0)
    (options,) = asked
    path = PATHS[decode]
    assert options["device"] == "mixed"
    assert options["hw_decoder_load"] == path.hw_decoder_load
    assert options["hybrid_huffman_threshold"] == path.hybrid_huffman_threshold
    assert {nodes[name] for name in ("Image", *CHANGES)} == {"gpu"}


@pytest.mark.parametrize("source", ["jpeg", "pixels"])
def test_pixels_decoded_on_the_cpu_are_copied_before_augmentation(source):
    asked, nodes = traced("cpu", 0, source)
    assert [options["device"] for options in asked] == ["cpu"] * (source == "jpeg")
    assert nodes.get("Image", "cpu") == "cpu"
    assert {nodes[name] for name in CHANGES} == {"gpu"}


@pytest.mark.parametrize("finish", ["float", "bytes"])
def test_without_a_gpu_everything_is_on_the_cpu(finish):
    asked, nodes = traced("cpu", None, finish=finish)
    assert [sorted(options) for options in asked] == [["device", "output_type"]]
    assert set(nodes.values()) == {"cpu"}


@pytest.mark.parametrize("finish", ["float", "bytes"])
def test_pixels_are_mirrored_and_normalised_or_unchanged(finish):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 10, 3), dtype=np.uint8)
    choices = choose_params(Augmentation(), np.arange(6), 1, 0, (8, 10))
    graph = DecodeGraph(6, "cpu", 1, 1, None, Augmentation(), "pixels", finish)
    graph.feed(pixels, choices)
    found = np.array(graph.take().as_tensor())
    graph.release()
    if finish == "bytes":
        assert (found == pixels).all()
        return
    planes = ((pixels - np.float32(MEAN)) / np.float32(STD)).transpose(0, 3, 1, 2)
    assert found.dtype == np.float32 and set(choices.mirror) == {True, False}
    for image, plane, mirror in zip(found, planes, choices.mirror, strict=True):
        assert (image == (plane[..., ::-1] if mirror else plane)).all()


@pipeline_def
def twice():
    return external_input("number", DALIDataType.INT32, 0) * 2


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_at_most_depth_batches_are_in_flight_in_order(depth):
    options = {"batch_size": 2, "num_threads": 1, "device_id": None}
    queue = PipelineQueue(twice(prefetch_queue_depth=depth, **options), depth)
    runs: list[int] = []
    run = queue._pipeline.schedule_run

    def seen():
        runs.append(1)
        run()

    queue._pipeline.schedule_run = seen
    for number in range(depth - 1):
        queue.feed_inputs({"number": np.array([number, -number], np.int32)})
    assert not runs  # the first call starts `depth` batches
    for number in range(depth - 1, 7):
        queue.feed_inputs({"number": np.array([number, -number], np.int32)})
    assert len(runs) == 1
    for number in range(7):
        assert np.array(queue.take().as_tensor()).tolist() == [2 * number, -2 * number]
        queue.release()
        assert len(runs) == min(number + 2, 7 - depth + 1)


def test_the_first_faulty_image_is_found_with_its_fault(make_face):
    sound = [np.frombuffer(make_face(n, 0), np.uint8) for n in range(3)]
    assert find_faulty_image(sound, (112, 112)) is None
    noise = np.arange(99, dtype=np.uint8)
    assert find_faulty_image([*sound, noise, noise], (112, 112)) == (3, "cannot be decoded")
    other = np.frombuffer(make_face(9, 0, (112, 96)), np.uint8)
    said = "is 112x96 pixels, not 112x112"
    assert find_faulty_image([sound[0], other, noise], (112, 112)) == (1, said)


@pytest.mark.parametrize(
    ("decode", "load", "threshold"),
    [
        ("mixed", 0.65, 1_000_000),
        ("mixed_cuda", 0.0, 1_000_000),
        ("mixed_hardware", 1.0, 1_000_000),
        ("mixed_gpu_huffman", 0.0, 1000),
    ],
)
def test_a_mixed_mode_chooses_the_share_of_the_jpeg_hardware(decode, load, threshold):
    options = decoder_options(decode)
    assert options.pop("output_type") == DALIImageType.RGB
    assert options == {
        "device": "mixed",
        "hw_decoder_load": load,
        "hybrid_huffman_threshold": threshold,
    }


@pytest.mark.parametrize("decode", ["cpu", "native"])
def test_a_mode_on_the_cpu_has_no_option_of_the_jpeg_hardware(decode):
    assert decoder_options(decode) == {"device": "cpu", "output_type": DALIImageType.RGB}


def planes_in_plain_pipeline(augmentation, device_id=None):
    """Return a pipeline without conditionals that converts fed pixels to normalised planes."""
    pipe = Pipeline(2, 1, device_id, prefetch_queue_depth=1)
    with pipe:
        image = external_input("image", DALIDataType.UINT8, 3, layout="HWC")
        planes = to_planes(image, augmentation)
        pipe.set_outputs(planes)
    return pipe, planes


@pytest.mark.parametrize(("device_id", "device"), [(None, "cpu"), (0, "gpu")])
def test_planes_are_on_the_device_of_the_pipeline(device_id, device):
    _, planes = planes_in_plain_pipeline(Augmentation(), device_id)
    assert planes.device == device


def test_colours_change_before_the_shift_and_the_square_which_are_grey():
    augmentation = Augmentation(color_jitter=0.5, cut_out=4, shift=3)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 10, 3), dtype=np.uint8)
    params = AugmentParams(
        mirror=np.array([False, True]),
        color=np.array([[0.5, 1, 1], [0.25, 1, 1]], np.float32),
        quality=np.zeros(2, np.int32),
        cut_out=np.array([[4, 5, 3, 2], [0, 0, 2, 2]], np.int32),
        shift=np.array([[2, -1], [0, 3]], np.int32),
    )
    expected = np.full((2, 8, 10, 3), CUT_OUT_VALUE, np.float32)
    expected[0, 2:, :9] = 0.5 * pixels[0, :6, 1:]
    expected[0, 4:7, 5:7] = CUT_OUT_VALUE
    expected[1, :, 3:] = 0.25 * pixels[1, :, :7]
    expected[1, :2, :2] = CUT_OUT_VALUE
    expected[1] = expected[1, :, ::-1].copy()
    queue = PipelineQueue(planes_in_plain_pipeline(augmentation)[0], 1)
    queue.feed_inputs({"image": pixels, **augment_inputs(params, augmentation)})
    found = np.array(queue.take().as_tensor())
    queue.release()
    assert np.abs(found - ((expected - MEAN) / STD).transpose(0, 3, 1, 2)).max() < 1e-5


def test_planes_without_augmentation_are_the_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 10, 3), dtype=np.uint8)
    params = choose_params(NO_AUGMENTATION, np.arange(2), 1, 0, (8, 10))
    queue = PipelineQueue(planes_in_plain_pipeline(NO_AUGMENTATION)[0], 1)
    queue.feed_inputs({"image": pixels, **augment_inputs(params, NO_AUGMENTATION)})
    found = np.array(queue.take().as_tensor())
    queue.release()
    assert np.abs(found - ((pixels - MEAN) / STD).transpose(0, 3, 1, 2)).max() < 1e-5
