"""Cards: what a model or a data set says of itself on the Hub, written from what is on disk; nothing is invented.

`model_card` reads a model folder alone (terrazzo.json, evaluation.json, config.json), `data_card` a data set;
`pictures` puts what they show beside them. What is not known is said to be not known. No path of this machine is in any
of them.
"""

from terrazzo.cards.datasets import data_card
from terrazzo.cards.models import model_card
from terrazzo.cards.pictures import pictures

__all__ = ["data_card", "model_card", "pictures"]
