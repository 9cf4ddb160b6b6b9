"""Two ways in which the vector of a contrast pair acts.

front        the paper's (section 3): row p of the difference is added at position p of the prompt. The prompts here
             are longer than the contrast, so that no new token is predicted from a position that is touched: what is
             written can only change through attention.
everywhere   one direction, the mean of the rows that differ, at every position of the prompt and of what is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from jaxtyping import Float
from replications.activation_addition.material import Contrast
from torch import Tensor

from interventions import Model
from steering import Everywhere, Positions, PromptOnly, Steer, SteeringVector, activation_addition


@dataclass(frozen=True)
class Way:
    """A name, and the positions at which a vector acts."""

    name: str
    positions: Positions

    def vector(self, model: Model, contrast: Contrast, name: str) -> SteeringVector:
        """The vector of a pair, [pos, d_model] or [d_model] in every layer.

        Raises:
            SteeringError: the model's tokenizer does not tell the two texts apart, or has no tokens for one.
        """
        vector = activation_addition(model, contrast.positive, contrast.negative, name=name)
        return vector if self is FRONT else mean_row(vector)

    def steer(self, vector: SteeringVector, layer: int, coefficient: float) -> Steer:
        return Steer(vector, coefficient, layer, self.positions)


FRONT = Way("front", PromptOnly(keep_last=True))
EVERYWHERE = Way("everywhere", Everywhere())
WAYS = (FRONT, EVERYWHERE)


def mean_row(vector: SteeringVector) -> SteeringVector:
    """In each layer the mean of the rows that are not 0."""
    directions: Mapping[int, Float[Tensor, " d_model"]] = {
        layer: rows[rows.any(dim=1)].mean(dim=0) for layer, rows in vector.directions.items()
    }
    return replace(vector, directions=directions)
