# SPDX-License-Identifier: Apache-2.0
"""Margins that differ from image to image: AdaFace, MagFace, ElasticFace.

All of them change the target's cosine alone, so they ride the fused operator.
"""

import math

import mxnet as mx
from mxnet import autograd

from heads.checks import check_flag, check_number
from heads.cross_entropy import length, through_psi
from heads.margin_softmax import MarginSoftmax, check_size
from heads.margins import adaptive_angle, additive_angles
from heads.statistics import Reduce, Traced, alone, state

LEAST_LENGTH, MOST_LENGTH = 1e-3, 100.0  # AdaFace looks at lengths within these bounds


def _cut_length(F, embedding):
    return F.clip(length(F, embedding), LEAST_LENGTH, MOST_LENGTH)


def _mean_and_deviation(F, lengths, running):
    # About the running mean: squares of the lengths themselves would round it away.
    mean = F.slice_axis(running, axis=0, begin=0, end=1)
    apart = F.broadcast_sub(lengths, mean)
    first = F.mean(apart, axis=0, keepdims=True)
    second = F.mean(F.square(apart), axis=0, keepdims=True)
    return F.concat(mean + first, F.sqrt(F.relu(second - F.square(first))), dim=0)


class AdaFace(MarginSoftmax):
    """Margins by the quality of the image, for which the length of its embedding stands.

    The margin of `heads.margins.adaptive_angle` with the quality q = h (|x| - mean) / std, cut to
    [-1, 1], by the running mean and deviation of the lengths.  No gradient flows through q.

    Parameters
    ----------
    m
        Margin.
    h
        Share of the deviation: with 0.333, q is within [-1, 1] for two thirds of the images.
    momentum
        Share of the newest batch in the running mean and deviation.
    reduce
        See `heads.statistics.Reduce`.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        m: float,
        h: float,
        momentum: float,
        scale: float,
        reduce: Reduce = alone,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        self._m, self._h, self._momentum, self._reduce = m, h, momentum, reduce
        self._lengths_of, self._moments = Traced(_cut_length), Traced(_mean_and_deviation)
        # Running mean and deviation; its authors' first values.
        first = mx.init.Constant(mx.nd.array([20.0, 100.0]))
        self.lengths = state(self, "lengths", (2,), first)

    def forward(self, embedding, label, margin_fraction=None):
        if autograd.is_training() and isinstance(embedding, mx.nd.NDArray):
            with autograd.pause():
                self._observe(embedding)
        return super().forward(embedding, label, margin_fraction)

    def _observe(self, embedding: mx.nd.NDArray) -> None:
        """Move the running mean and deviation towards those of a batch of all ranks."""
        running = self.lengths.list_data()[0]
        lengths = self._lengths_of(embedding)
        batch = self._reduce(lengths, lambda rows: self._moments(rows, running))
        running[:] = running + self._momentum * (batch - running)

    def _full_margin(self, F, cosine, embedding, lengths):
        mean = F.slice_axis(lengths, axis=0, begin=0, end=1)
        deviation = F.slice_axis(lengths, axis=0, begin=1, end=2)
        apart = F.broadcast_sub(_cut_length(F, embedding), mean)
        quality = F.broadcast_div(apart, deviation + 1e-3) * self._h
        return adaptive_angle(F, cosine, F.clip(quality, -1.0, 1.0), self._m)


class MagFace(MarginSoftmax):
    """A margin on the angle that grows with the length of the embedding, and a pull on the length.

    loss = cross-entropy with the margin m(a) + length_weight g(a), where a is |x| cut to
    [low, high], m(a) rises linearly from least to most, and g(a) = a / high^2 + 1 / a falls up to
    a = high.  Gradients flow through a in both.

    Parameters
    ----------
    low, high
        Lengths between which the margin grows.
    least, most
        Margins in radians at these.
    length_weight
        Of g.
    easy_margin
        See `heads.margins.confined`.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        low: float,
        high: float,
        least: float,
        most: float,
        length_weight: float,
        scale: float,
        easy_margin: bool,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        self._low, self._high, self._least = low, high, least
        self._easy_margin = easy_margin
        self._growth, self._length_weight = (most - least) / (high - low), length_weight

    def hybrid_forward(self, F, embedding, label, margin_fraction, weight):
        loss, cosine, *rest = super().hybrid_forward(F, embedding, label, margin_fraction, weight)
        a = F.clip(length(F, embedding), self._low, self._high)
        margin = self._margin_of(a)
        by_margin = additive_angles(F, cosine, F.BlockGrad(margin), self._easy_margin)[2]
        slope = F.BlockGrad(F.broadcast_mul(by_margin, margin_fraction))
        loss = through_psi(F, loss, slope * margin, self._scale)
        loss = loss + self._length_weight * (a / self._high**2 + 1.0 / a)
        return loss, cosine, *rest

    def _full_margin(self, F, cosine, embedding):
        a = F.clip(length(F, embedding), self._low, self._high)
        return additive_angles(F, cosine, self._margin_of(a), self._easy_margin)[:2]

    def _margin_of(self, a):
        return self._least + self._growth * (a - self._low)


class ElasticFace(MarginSoftmax):
    """ArcFace with a margin that is drawn for each image in every step, from N(m2, sigma).

    Parameters
    ----------
    m2
        Mean of the margins in radians.
    sigma
        Their deviation; they are cut to [0, pi/2].
    plus, by_argsort
        Whether the drawn margins are dealt out by the cosine, and how: see `elasticface`.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        m2: float,
        sigma: float,
        plus: bool,
        by_argsort: bool,
        scale: float,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        self._m2, self._sigma, self._plus, self._by_argsort = m2, sigma, plus, by_argsort

    def _full_margin(self, F, cosine, embedding):
        margins = self._m2 + self._sigma * F.random.normal_like(cosine)
        margins = F.clip(margins, 0.0, math.pi / 2)
        if self._plus:
            place = F.argsort(cosine, axis=0, is_ascend=False)  # images, the nearest first
            if not self._by_argsort:
                place = F.argsort(place, axis=0)  # rank of each image, 0: the nearest
            margins = F.take(F.sort(F.BlockGrad(margins), axis=0), place)
        return additive_angles(F, cosine, margins)[:2]


def adaface(
    num_classes: int,
    embedding_size: int,
    reduce: Reduce = alone,
    *,
    m: float = 0.4,
    h: float = 0.333,
    momentum: float = 0.01,
    scale: float = 64.0,
) -> AdaFace:
    """Build a softmax whose margin depends on the quality of the image.

    -log softmax_y of the logits scale cos t_j, that of the true class y
    scale (cos(t_y - m q) - m q - m), where q = h (length of the embedding - running mean of them) /
    running deviation, cut to -1 to 1.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    reduce
        See `heads.statistics.Reduce`.
    m
        Margin, 0 to 1.
    h
        Share of the deviation of the lengths, above 0.
    momentum
        Share of the newest batch in their running mean and deviation, above 0 and at most 1.
    scale
        Factor on the cosines, above 0.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Kim et al., "AdaFace", arXiv:2204.00964, equations 13 to 15. The deviation of a batch is that
    of its images, without the correction for a sample, so that a batch may be a single image. The
    authors' released code also clamps all cosines to -0.999 to 0.999, without a gradient beyond;
    the paper does not, nor does this loss: images are pulled within 2.6 degrees of their centre.
    """
    return AdaFace(
        **check_size(num_classes, embedding_size, scale),
        m=check_number("head.m", m, 0, 1, advice="0.4 is usual"),
        h=check_number("head.h", h, 0, math.inf, open_low=True, advice="0.333 is usual"),
        momentum=check_number(
            "head.momentum", momentum, 0, 1, open_low=True, advice="0.01 is usual"
        ),
        reduce=reduce,
    )


def magface(
    num_classes: int,
    embedding_size: int,
    *,
    low: float = 10.0,
    high: float = 110.0,
    least: float = 0.45,
    most: float = 0.8,
    length_weight: float = 35.0,
    scale: float = 64.0,
    easy_margin: bool = False,
) -> MagFace:
    """Build a softmax whose margin grows with the length of the embedding.

    -log softmax_y of the logits scale cos t_j, that of the true class y scale cos(t_y + m(a)), plus
    length_weight (a / high^2 + 1 / a), where a is the length of the embedding, brought to low to
    high, and m(a) grows from least to most between these.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    low, high
        Lengths between which the margin grows, above 0.
    least, most
        Margins at these in radians, 0 to pi/2.
    length_weight
        Of the pull on the length, from 0.
    scale
        Factor on the cosines, above 0.
    easy_margin
        Whether the margin is confined to angles below pi/2, the default of the authors' code.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type, or a pair is not in order.

    Notes
    -----
    Meng et al., "MagFace", arXiv:2103.06627, equation 3 and section 3.3, with ArcFace's guard, as
    in the authors' code without its easy margin. ``easy_margin`` is false by default: the equation
    has a margin at every angle, and with it the hardest images, beyond pi/2, have none, nor does
    their margin act on their length.
    """
    size = check_size(num_classes, embedding_size, scale)
    low = check_number("head.low", low, 0, math.inf, open_low=True, advice="10 is usual")
    high = check_number("head.high", high, low, math.inf, open_low=True, advice="110 is usual")
    least = check_number("head.least", least, 0, math.pi / 2, advice="0.45 is usual")
    most = check_number("head.most", most, least, math.pi / 2, advice="0.8 is usual")
    length_weight = check_number(
        "head.length_weight", length_weight, 0, math.inf, advice="35 is usual"
    )
    easy_margin = check_flag("head.easy_margin", easy_margin)
    lengths = {"low": low, "high": high, "least": least, "most": most}
    return MagFace(**size, **lengths, length_weight=length_weight, easy_margin=easy_margin)


def elasticface(
    num_classes: int,
    embedding_size: int,
    *,
    m2: float = 0.5,
    sigma: float = 0.05,
    plus: bool = False,
    by_argsort: bool = False,
    scale: float = 64.0,
) -> ElasticFace:
    """Build a softmax with a random margin added to the angle to the true class.

    -log softmax of the logits scale cos t_j, that of the true class scale cos(t + e), where e is
    drawn for each image from a normal distribution of mean m2 and deviation sigma.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    m2
        Mean of the margins in radians, 0 to pi/2.
    sigma
        Their deviation in radians, from 0; the authors have 0.05, and 0.0175 with `plus`.
    plus
        Whether images further from the centre of their class get the larger ones.
    by_argsort
        With `plus`: whether image i gets margin number j of the sorted ones, j being image number i
        from the nearest on, as in the authors' released code; else j is the rank of image i.
    scale
        Factor on the cosines, above 0.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type, or `by_argsort` comes without `plus`.

    Notes
    -----
    Boutros et al., "ElasticFace", arXiv:2109.09416, equation 6 (ElasticFace-Arc), section 3.3 for
    `plus`. Where t > pi - e `arcface`'s guard holds, which is in neither paper nor code: there
    cos(t + e) would rise again. The paper's rule for `plus` goes by rank, as here; the published
    models of ElasticFace+ were trained by the code's, ``by_argsort``.
    """
    if check_flag("head.by_argsort", by_argsort) and not check_flag("head.plus", plus):
        raise ValueError(
            "head.by_argsort: goes with head.plus=true, got head.plus=false; set head.plus=true"
        )
    return ElasticFace(
        **check_size(num_classes, embedding_size, scale),
        m2=check_number("head.m2", m2, 0, math.pi / 2, advice="it is in radians, 0.5 is usual"),
        sigma=check_number("head.sigma", sigma, 0, math.inf, advice="0.05 is usual"),
        plus=check_flag("head.plus", plus),
        by_argsort=by_argsort,
    )
