# SPDX-License-Identifier: Apache-2.0
"""Git loss: center loss with a push away from the centres of other classes."""

from typing import Annotated, Any

from heads.center import Center
from heads.mining import pairs
from ranges import at_least

GitWeight = Annotated[float, at_least(0, "git_weight 0 disables the push")]


class Git(Center):
    """Center loss with a push of each embedding away from the running centres of other classes.

    center loss + git_weight / B * sum over images j of other classes of 1 / (1 + |x - m_yj|^2)

    Calefati et al., "Git Loss for Deep Face Recognition", arXiv:1807.08512, equation 3.

    Symbols: x is the embedding; B is the number of images in the batch; m_yj is the running centre
    of the class of image j.

    The equation of the paper sums over all images except the image itself. Here the sum also
    excludes the other images of the true class: according to the text of the paper, the loss pushes
    embeddings away from the centres of other classes only.

    Parameters
    ----------
    git_weight
        Factor on the push away from the centres of other classes, lambda_G in the paper.
    """

    def __init__(self, *sizes: int, git_weight: GitWeight = 0.003, **kwargs: Any) -> None:
        super().__init__(*sizes, **kwargs)
        self._git_weight = git_weight

    def added_term(self, F: Any, embedding: Any, label: Any, centers: Any) -> Any:
        own = self._own_centers(F, label, centers)
        loss = self._pull(F, embedding, own)
        if not self._git_weight:
            return loss
        _, other = pairs(F, label)
        squares = F.expand_dims(F.sum(F.square(own), axis=1), axis=0)
        squares = F.broadcast_add(F.sum(F.square(embedding), axis=1, keepdims=True), squares)
        # Squared distances, shape (batch size, batch size).
        distance = F.relu(squares - 2.0 * F.dot(embedding, own, transpose_b=True))
        # The mean over a row is the sum of the equation divided by the batch size B.
        return loss + self._git_weight * F.mean(other / (1.0 + distance), axis=1)
