# SPDX-License-Identifier: Apache-2.0
"""Center loss: softmax with a pull of each embedding towards the mean of its class."""

from typing import Any

import mxnet as mx
from mxnet import autograd

from heads.head import NOT_FILTERED, NOT_SHARDED
from heads.settings import CenterRate, CenterWeight
from heads.softmax import Softmax
from heads.statistics import TracedFunction, create_state


class Center(Softmax):
    """Softmax with a pull of each embedding towards the running centre of its class.

    softmax loss + center_weight / 2 |x - m_y|^2

    Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition", ECCV 2016,
    equations 2 to 5.

    Symbols: x is the embedding; m_y is the running centre of its class.

    After each batch, the centre m of a class with n embeddings x_i in the batch becomes
    ``m - center_rate * sum_i (m - x_i) / (1 + n)``. The centres start at 0 and have no gradient.

    Parameters
    ----------
    center_weight
        Factor on the added term, half the squared distance between an embedding and the running
        centre of its class.
    center_rate
        Step size of the running centres towards the embeddings of their class: 0 leaves the centres
        unchanged.
    """

    refused_settings = NOT_SHARDED | NOT_FILTERED

    def __init__(
        self,
        *sizes: int,
        center_weight: CenterWeight = 0.003,
        center_rate: CenterRate = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(*sizes, **kwargs)
        self._center_weight, self._center_rate = center_weight, center_rate
        self._moved = TracedFunction(self._moved_centers)
        self.centers = create_state(self, "centers", self.weight.shape, mx.init.Zero())

    def forward(self, embedding: Any, label: Any, margin_fraction: Any = None) -> Any:
        out = super().forward(embedding, label)
        if autograd.is_training() and isinstance(embedding, mx.nd.NDArray):
            with autograd.pause():
                label = label.astype(embedding.dtype, copy=False).reshape((-1, 1))
                self._reduce(mx.nd.concat(embedding, label, dim=1), self._move)
        return out

    def _move(self, rows: mx.nd.NDArray) -> mx.nd.NDArray:
        """Move the running centre of each class in the batch towards the embeddings of the class.

        ``rows`` has one row per image of all ranks: the embedding, followed by the label.
        """
        centers = self.centers.list_data()[0]
        moved, classes = self._moved(rows, centers)
        # Write the moved centres in place; several images of one class write the same value. The
        # plain assignment `centers[classes] = moved` takes ten times as long.
        mx.nd._internal._scatter_set_nd(centers, moved, classes, shape=centers.shape, out=centers)
        return moved

    def _moved_centers(self, F: Any, rows: Any, centers: Any) -> tuple[Any, Any]:
        embedding = F.slice_axis(rows, axis=1, begin=0, end=-1)
        label = F.slice_axis(rows, axis=1, begin=-1, end=None)  # shape (images, 1)
        same = F.broadcast_equal(label, F.transpose(label))
        count = F.sum(same, axis=1, keepdims=True)
        own = F.take(centers, F.reshape(label, shape=(-1,)), mode="clip")
        # Sum of (m - x) over the `count` images x of a class with centre m: count * m - sum of x.
        total = F.broadcast_mul(own, count) - F.dot(same, embedding)
        moved = own - self._center_rate * F.broadcast_div(total, 1.0 + count)
        return moved, F.cast(F.transpose(label), dtype="int32")

    def added_term(self, F: Any, embedding: Any, label: Any, centers: Any) -> Any:
        return self._pull(F, embedding, self._own_centers(F, label, centers))

    def _own_centers(self, F: Any, label: Any, centers: Any) -> Any:
        return F.BlockGrad(F.take(centers, label, mode="clip"))

    def _pull(self, F: Any, embedding: Any, own: Any) -> Any:
        return 0.5 * self._center_weight * F.sum(F.square(embedding - own), axis=1)
