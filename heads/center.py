# SPDX-License-Identifier: Apache-2.0
"""Center loss."""

import mxnet as mx
from mxnet import autograd

from heads.settings import CenterRate, CenterWeight
from heads.softmax import Softmax
from heads.statistics import Reduce, Traced, alone, state


class Center(Softmax):
    """Softmax with a pull of the embeddings to a centre that follows their class.

    softmax; + center_weight / 2 |x - m_y|^2

    Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition", ECCV 2016,
    equations 2 to 5.

    After each batch the centre of a class with n images x_i in it goes to m - center_rate sum_i (m
    - x_i) / (1 + n). The centres start at 0 and have no gradient.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        reduce: Reduce = alone,
        *,
        center_weight: CenterWeight = 0.003,
        center_rate: CenterRate = 0.5,
        use_bias: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, use_bias=use_bias, **kwargs)
        self._center_weight = center_weight
        self._center_rate, self._reduce = center_rate, reduce
        self._moved = Traced(self._moved_centers)
        shape = (num_classes, embedding_size)
        self.centers = state(self, "centers", shape, mx.init.Zero())

    def forward(self, embedding, label, margin_fraction=None):
        out = super().forward(embedding, label)
        if autograd.is_training() and isinstance(embedding, mx.nd.NDArray):
            with autograd.pause():
                self._follow(embedding, label)
        return out

    def _follow(self, embedding: mx.nd.NDArray, label: mx.nd.NDArray) -> None:
        """Move the centres of a batch of all ranks."""
        label = label.astype(embedding.dtype, copy=False).reshape((-1, 1))
        self._reduce(mx.nd.concat(embedding, label, dim=1), self._move)

    def _move(self, rows: mx.nd.NDArray) -> mx.nd.NDArray:
        centers = self.centers.list_data()[0]
        moved, classes = self._moved(rows, centers)
        # In place, alike for all images of a class; `centers[classes] = moved` takes ten times as
        # long.
        mx.nd._internal._scatter_set_nd(centers, moved, classes, shape=centers.shape, out=centers)
        return moved

    def _moved_centers(self, F, rows, centers):
        embedding = F.slice_axis(rows, axis=1, begin=0, end=-1)
        label = F.slice_axis(rows, axis=1, begin=-1, end=None)  # (N, 1)
        same = F.broadcast_equal(label, F.transpose(label))
        count = F.sum(same, axis=1, keepdims=True)
        own = F.take(centers, F.reshape(label, shape=(-1,)), mode="clip")
        # sum of (m - x) over the class = count m - sum of x
        way = F.broadcast_mul(own, count) - F.dot(same, embedding)
        moved = own - self._center_rate * F.broadcast_div(way, 1.0 + count)
        return moved, F.cast(F.transpose(label), dtype="int32")

    def added_term(self, F, embedding, label, centers):
        return self._pull(F, embedding, self._own_centers(F, label, centers))

    def _own_centers(self, F, label, centers):
        return F.BlockGrad(F.take(centers, label, mode="clip"))  # (B, E)

    def _pull(self, F, embedding, own):
        return 0.5 * self._center_weight * F.sum(F.square(embedding - own), axis=1)
