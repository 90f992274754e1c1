"""The objectives, by the name that a config gives them."""

from minillm.objectives.causal import causal
from minillm.objectives.contrastive import simcse
from minillm.objectives.denoising import denoising, masked_patches
from minillm.objectives.masked import masked
from minillm.objectives.next_sentence import masked_next_sentence, next_sentence
from minillm.objectives.pattern import pattern
from minillm.objectives.sequence_to_sequence import sequence_to_sequence
from minillm.objectives.span import span
from minillm.objectives.structural import structural
from minillm.objectives.supervised import classify, multi_label, regression, span_qa, tag

OBJECTIVES = {
    "causal": causal,
    "masked": masked,
    "next_sentence": next_sentence,
    "masked_next_sentence": masked_next_sentence,
    "structural": structural,
    "sequence_to_sequence": sequence_to_sequence,
    "span": span,
    "classify": classify,
    "pattern": pattern,
    "multi_label": multi_label,
    "regression": regression,
    "tag": tag,
    "span_qa": span_qa,
    "simcse": simcse,
    "denoising": denoising,
    "masked_patches": masked_patches,
}
