"""The models, by the name that a config gives them."""

from minillm.models import gpt

MODELS = {"gpt": gpt}
