"""The objectives, by the name that a config gives them."""

from minillm.objectives.causal import causal

OBJECTIVES = {"causal": causal}
