# SPDX-License-Identifier: Apache-2.0
"""Softmax with centres that follow the embeddings of each class: Center loss and Git loss."""

import math

import mxnet as mx
from mxnet import autograd

from heads.checks import check_number
from heads.mining import pairs
from heads.softmax import Softmax, check_classes
from heads.statistics import Reduce, Traced, alone, state


class Center(Softmax):
    """Softmax and the squared distance to a centre that follows the class: see `center`, `git`.

    Parameters
    ----------
    center_weight
        Of half the squared distance to the own centre.
    git_weight
        Of the push from the centres of the batch's other classes.
    center_rate
        Share of the way that a centre goes.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        center_weight: float,
        center_rate: float,
        git_weight: float = 0.0,
        reduce: Reduce = alone,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, **kwargs)
        self._center_weight, self._git_weight = center_weight, git_weight
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

    def _beside(self, F, embedding, label, centers):
        own = F.BlockGrad(F.take(centers, label, mode="clip"))  # (B, E)
        loss = 0.5 * self._center_weight * F.sum(F.square(embedding - own), axis=1)
        if not self._git_weight:
            return loss
        _, other = pairs(F, label)
        squares = F.expand_dims(F.sum(F.square(own), axis=1), axis=0)
        squares = F.broadcast_add(F.sum(F.square(embedding), axis=1, keepdims=True), squares)
        distance = F.relu(squares - 2.0 * F.dot(embedding, own, transpose_b=True))  # (B, B) squared
        # The mean of a row is its sum over the batch's size.
        return loss + self._git_weight * F.mean(other / (1.0 + distance), axis=1)


def center(
    num_classes: int,
    embedding_size: int,
    reduce: Reduce = alone,
    *,
    center_weight: float = 0.003,
    center_rate: float = 0.5,
    use_bias: bool = False,
) -> Center:
    """Build a softmax that also pulls embeddings to the centre of their class.

    loss = cross-entropy + center_weight / 2 |x - m_y|^2. After each batch the centre of a class
    with n images x_i in it goes to m - center_rate sum_i (m - x_i) / (1 + n).

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    reduce
        See `heads.statistics.Reduce`.
    center_weight
        Lambda, from 0.
    center_rate
        Alpha, from 0 to 1.
    use_bias
        Whether each class has a bias in the softmax.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition", ECCV 2016,
    equations 2 to 5. The centres ``centers`` start at 0 and have no gradient.
    """
    return Center(
        **check_classes(num_classes, embedding_size, use_bias),
        **_check_center(center_weight, center_rate),
        reduce=reduce,
    )


def git(
    num_classes: int,
    embedding_size: int,
    reduce: Reduce = alone,
    *,
    center_weight: float = 0.003,
    git_weight: float = 0.003,
    center_rate: float = 0.5,
    use_bias: bool = False,
) -> Center:
    """Build a center loss that also pushes embeddings from the centres of other classes.

    To the loss of `center` comes, for image i of B, git_weight / B times the sum over the images j
    of other classes of 1 / (1 + |x_i - m_yj|^2).

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    reduce
        See `heads.statistics.Reduce`.
    center_weight, git_weight
        Lambda_C and lambda_G, from 0.
    center_rate
        Alpha of the centres, from 0 to 1.
    use_bias
        Whether each class has a bias in the softmax.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Calefati et al., "Git Loss for Deep Face Recognition", arXiv:1807.08512, equation 3. It sums
    over all j other than i; images of the own class are left out here, as its text wants centres of
    others pushed away.
    """
    return Center(
        **check_classes(num_classes, embedding_size, use_bias),
        **_check_center(center_weight, center_rate),
        git_weight=check_number("head.git_weight", git_weight, 0, math.inf, advice="0 is none"),
        reduce=reduce,
    )


def _check_center(center_weight, center_rate):
    return {
        "center_weight": check_number(
            "head.center_weight", center_weight, 0, math.inf, advice="0.003 is usual"
        ),
        "center_rate": check_number("head.center_rate", center_rate, 0, 1, advice="0.5 is usual"),
    }
