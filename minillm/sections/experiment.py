"""The sections of a config but the model's, the optimizer's, the data's and tuning's: every key with its type, default and limits."""

from dataclasses import dataclass, field, fields
from typing import Literal, NamedTuple

from minillm.sections.data import IMAGES, STRICT, SYNTHETIC
from minillm.sections.tuning import TuningConfig as TuningConfig  # beside the others for who asks

LEFT_TO_RIGHT = ("gpt", "rnn", "lstm", "transformer_xl")
RECURRENT = ("rnn", "lstm", "transformer_xl")  # these carry a state from one segment to the next
SEQUENCES = ("gpt", "bert", "transformer", "t5")  # these compute all positions at once, in any division of them


class Needs(NamedTuple):
    """What an objective needs of the other sections, and which keys of its own it reads."""

    models: tuple[str, ...]
    why: str  # these models: what they alone do
    reads: tuple[str, ...]  # "text", or a source that is none
    terms: tuple[str, ...]  # of the loss
    options: tuple[str, ...]
    tasks: tuple[str, ...] = ()  # heads that the model must have
    metric: str = "nll"  # the objective's main metric
    unit: str = "tokens"  # of which it is the mean


LIKELIHOOD = ("label_smoothing", "z_loss")
MASKING = ("mask_rate", "whole_words")
PAIRS = ("masked", "next_sentence")
SPANS = ("span_density", "span_length")
NEEDS = {
    "causal": Needs(LEFT_TO_RIGHT, "reads from left to right", ("text", "copy"), ("loss",), LIKELIHOOD),
    "masked": Needs(("bert",), "has a masked-LM head", ("text",), ("masked",), MASKING, ("masked",)),
    "masked_next_sentence": Needs(("bert",), "has both heads", ("text",), PAIRS, (*MASKING, "pairs"), PAIRS),
    "structural": Needs(
        ("bert",), "has both heads", ("text",), (*PAIRS, "word_order"), (*MASKING, "shuffle_rate"), PAIRS
    ),
    "span": Needs(("t5", "transformer"), "has an encoder and a decoder", ("text",), ("loss",), (*LIKELIHOOD, *SPANS)),
    "sequence_to_sequence": Needs(
        ("t5", "transformer"), "has an encoder and a decoder", ("text", *SYNTHETIC), ("loss",), LIKELIHOOD
    ),
    "classify": Needs(
        ("bert", "gpt", "vit"),
        "has a classifier",
        ("text", "digits"),
        ("loss",),
        ("label_smoothing", "markers"),
        ("classify",),
        unit="examples",
    ),
    "pattern": Needs(
        ("bert", "gpt"),
        "scores words",
        ("text",),
        ("loss",),
        ("label_smoothing",),
        ("masked",),
        unit="examples",
    ),
    "multi_label": Needs(("bert", "gpt"), "has a classifier", ("text",), ("loss",), (), ("classify",), unit="examples"),
    "regression": Needs(
        ("bert", "gpt"), "has a head for rows", ("text",), ("loss",), (), ("classify",), "squared_error", "examples"
    ),
    "tag": Needs(("bert",), "has a head for tokens", ("text",), ("loss",), ("label_smoothing",), ("tag",)),
    "span_qa": Needs(
        ("bert",), "has a head for spans", ("text",), ("loss",), ("answer_length",), ("span",), unit="examples"
    ),
    "simcse": Needs(("bert",), "reads both ways", ("text",), ("loss",), (), unit="examples"),
    "masked_patches": Needs(
        ("vit",),
        "reads images",
        IMAGES,
        ("reconstruction",),
        ("patch_rate",),
        ("patches",),
        "squared_error",
        "pixels",
    ),
    "denoising": Needs(
        ("autoencoder",),
        "restores images",
        IMAGES,
        ("reconstruction",),
        ("noise", "noise_rate"),
        (),
        "squared_error",
        "pixels",
    ),
}


def tasks_of(objective: str, kind: str) -> tuple[str, ...]:
    """Heads that the model must have: a pattern asks a GPT's own logits, which are no head."""
    return () if objective == "pattern" and kind in LEFT_TO_RIGHT else NEEDS[objective].tasks


OWN = ("tasks", "labels", "relations", "marks")  # keys of [model] that the objective decides
TASK_HEADS = ("classify", "tag", "span")  # a task's own: not taken from a base


@dataclass(frozen=True)
class TokenizerConfig:
    """SentencePiece, trained on the training part and stored in the run."""

    __pydantic_config__ = STRICT

    kind: Literal["bpe", "unigram", "char"] = "bpe"
    vocabulary: int = 1024
    byte_fallback: bool = True

    def __post_init__(self):
        if self.vocabulary < 8:
            raise ValueError(f"vocabulary must be at least 8, got {self.vocabulary}")


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised: the sum over its terms of coefficient * mean."""

    __pydantic_config__ = STRICT

    name: Literal[
        "causal", "masked", "masked_next_sentence", "structural", "span", "sequence_to_sequence",
        "classify", "pattern", "multi_label", "regression", "tag", "span_qa", "simcse", "masked_patches", "denoising",
    ] = "causal"  # fmt: skip
    coefficients: dict[str, float] = field(default_factory=dict)  # term -> factor; a term that is not named counts once
    label_smoothing: float = 0.0
    z_loss: float = 0.0  # coefficient of log^2 Z
    mask_rate: float = 0.15  # share of the tokens to predict
    whole_words: bool = False  # mask all pieces of a word, not single ones
    pairs: Literal["next_sentence", "sentence_order"] = "next_sentence"  # random or next; swapped or in order
    shuffle_rate: float = 0.05  # share of the trigrams to shuffle
    span_density: float = 0.15  # share of the tokens to cut out
    span_length: float = 3.0  # mean length of a span, in tokens
    patch_rate: float = 0.5  # share of an image's patches to hide
    # words of every text, at whose first places classify reads the states (Soares et al. 2019); none: the whole row
    markers: tuple[str, ...] = ()
    answer_length: int | None = None  # tokens of an answer that is looked for at most; None: 30
    noise: Literal["zero", "gaussian"] = "zero"  # pixels set to 0, or with noise added
    noise_rate: float = 0.25  # their share, or the noise's standard deviation; 0: a plain autoencoder

    def __post_init__(self):
        if not 0.0 <= self.label_smoothing < 1.0 or self.z_loss < 0.0:
            raise ValueError("label_smoothing must be in [0, 1) and z_loss not negative")
        for name in ("mask_rate", "shuffle_rate", "span_density", "patch_rate"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be in (0, 1), got {getattr(self, name)}")
        if not all(marker.strip() for marker in self.markers) or len(set(self.markers)) < len(self.markers):
            raise ValueError(f"markers are different words, got {list(self.markers)}")
        if self.answer_length is not None and self.answer_length < 1:
            raise ValueError(f"answer_length must be at least 1, got {self.answer_length}")
        if self.span_length < 1.0:
            raise ValueError(f"span_length must be at least 1, got {self.span_length}")
        if self.noise_rate < 0.0 or (self.noise == "zero" and self.noise_rate >= 1.0):
            raise ValueError(f"noise_rate must not be negative, and below 1 for zero: {self.noise_rate}")
        needs, defaults = NEEDS[self.name], {f.name: f.default for f in fields(self)}
        for name in sorted(set(defaults) - {"name", "coefficients", *needs.options}):
            if getattr(self, name) != defaults[name]:
                raise ValueError(f"{name} says nothing to the objective {self.name!r}: leave it out")
        unknown = sorted(set(self.coefficients) - set(needs.terms))
        if unknown or min(self.coefficients.values(), default=0.0) < 0.0:
            terms = ", ".join(needs.terms)
            raise ValueError(f"coefficients must be numbers from 0 for terms of {terms}, got {self.coefficients}")
        if not any(self.coefficients.get(term, 1.0) for term in needs.terms):
            raise ValueError(f"coefficients are all 0, so that nothing is learned: {self.coefficients}")


@dataclass(frozen=True)
class TrainConfig:
    """The loop: how long, how large, what is measured and kept."""

    __pydantic_config__ = STRICT

    steps: int = 1000
    batch_size: int = 16  # examples per update
    shards: int = 1  # a power of two: parts of the batch that are added in fixed order, on one device or on many
    seed: int = 0
    log_every: int = 10
    evaluate_every: int = 100
    evaluate_batches: int | None = None  # of the fixed validation set; None: all of it
    checkpoint_every: int | None = None  # None: at every evaluation
    keep_last: int = 2
    keep_best: bool = True
    patience: int | None = None  # evaluations without a better validation loss before stopping; None: never
    hash_every: int = 100  # steps between hashes of every parameter in the provenance log; 0: none
    on_non_finite: Literal["stop", "skip", "rewind"] = "stop"  # loss or gradient: end, leave the update out, go back
    # a loss so many deviations above the median before it is a spike; None: none is looked for
    spike: float | None = None
    spike_window: int = 100  # losses that median and deviation are taken of
    on_spike: Literal["warn", "rewind"] = "warn"
    bad_steps: int = 10  # that are skipped or gone back from, at the most; see `training/watch.py`

    def __post_init__(self):
        for name in ("steps", "batch_size", "shards", "log_every", "evaluate_every", "keep_last", "patience",
                     "checkpoint_every", "evaluate_batches", "bad_steps"):  # fmt: skip
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.hash_every < 0:
            raise ValueError(f"hash_every must not be negative, got {self.hash_every}")
        if (self.spike is not None and not self.spike > 0.0) or self.spike_window < 2:
            raise ValueError(
                f"spike must be above 0 and spike_window at least 2, got {self.spike}, {self.spike_window}"
            )
        if self.spike is None and (self.on_spike, self.spike_window) != ("warn", 100):
            raise ValueError("on_spike and spike_window say nothing without spike: leave them out")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2^32), got {self.seed}")
        if self.patience is not None and not self.keep_best:
            raise ValueError("patience needs keep_best = true: early stopping goes back to the best checkpoint")
        if self.batch_size % self.shards:
            raise ValueError(f"shards must divide batch_size: {self.batch_size} % {self.shards} is not 0")
        if self.shards & (self.shards - 1):
            raise ValueError(f"shards must be a power of two, got {self.shards}")


@dataclass(frozen=True)
class MeshConfig:
    """How many devices, and what is split over them; see `sharding.py`."""

    __pydantic_config__ = STRICT

    data: int = 1
    model: int = 1
    rules: Literal["data", "fsdp", "sequence"] = "data"
    distributed: bool = False  # several processes; see `hosts.py`
    coordinator: str | None = None  # HOST:PORT of the first process; None: jax finds it (SLURM, TPU pods, ...)
    processes: int | None = None  # how many
    process: int | None = None  # which of them this is, from 0
    lost_after: int = 60  # seconds without a sign of life until a process counts as lost and the others end

    def __post_init__(self):
        if self.data < 1 or self.model < 1:
            raise ValueError(f"data and model must be at least 1, got {self.data} and {self.model}")
        told = (self.coordinator, self.processes, self.process)
        if not self.distributed and told != (None, None, None):
            raise ValueError("coordinator, processes and process belong to distributed = true")
        if None in told and told != (None, None, None):
            raise ValueError("coordinator, processes and process come together, or none of them")
        if self.lost_after < 1:
            raise ValueError(f"lost_after must be at least 1 second, got {self.lost_after}")


@dataclass(frozen=True)
class SampleConfig:
    """What the run writes when it has learned."""

    __pydantic_config__ = STRICT

    prompts: tuple[str, ...] = ("",)  # to continue; to fill in, where a masked or span model reads <mask>
    tokens: int = 100  # new ones per prompt, or fewer where the context ends
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self):
        if not self.prompts or self.tokens < 1:
            raise ValueError(
                f"at least one prompt and one token, got {len(self.prompts)} prompts, {self.tokens} tokens"
            )
        if self.temperature < 0.0:
            raise ValueError(f"temperature must not be negative (0 is greedy), got {self.temperature}")
        if self.top_k is not None and not 1 <= self.top_k < 2**31:
            raise ValueError(f"top_k must be in [1, 2^31), got {self.top_k}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2^32), got {self.seed}")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")


@dataclass(frozen=True)
class BaseConfig:
    """Whose parameters and tokenizer the run begins with."""

    __pydantic_config__ = STRICT

    # a run's folder, ours or imported, or a model that `minillm fetch` knows; None: begin by chance
    run: str | None = None
    vocabulary: int | None = None  # rows of its table; filled in

    def __post_init__(self):
        if self.vocabulary is not None and self.run is None:
            raise ValueError("vocabulary says nothing without a run: leave it out")


LABELLED = ("classify", "pattern", "multi_label", "regression", "tag", "span_qa")  # objectives that learn from labels


@dataclass(frozen=True)
class BaselineConfig:
    """Classical models of the same text, in the same run."""

    __pydantic_config__ = STRICT

    orders: tuple[int, ...] = (1, 3, 5)  # n-gram orders; 1 is the unigram
    xz: bool = True
    text: bool = True  # for labels: TF-IDF with logistic regression and the like
    features: bool = False  # for labels: logistic regression on what the base makes of the texts, untouched

    def __post_init__(self):
        if any(order < 1 for order in self.orders):
            raise ValueError("orders must be at least 1")
