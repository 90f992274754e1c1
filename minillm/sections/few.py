"""Sections of a config for few labels: [annotation], [pseudo], [consistency], [contrastive]. All are absent by default."""

from dataclasses import dataclass
from typing import Any, Literal

from minillm.errors import UserError
from minillm.sections.data import STRICT

# what the labels of the validation part are for, which `annotation.labels` does not count
CHOSEN = "TF-IDF's strength, and early stopping where it is asked for, are chosen by them"


@dataclass(frozen=True)
class AnnotationConfig:
    """Which labels of the training part somebody has written, how many are wrong, and what they cost."""

    __pydantic_config__ = STRICT

    # so many training texts have one, each class its share; None: all. The rest stay as texts
    labels: int | None = None
    seed: int | None = None  # of the draw, and of the errors; None: train.seed
    noise: float = 0.0  # share of the labels that are made wrong
    noise_kind: Literal["symmetric", "pair"] = "symmetric"  # any other class; or the next one in data.labels
    drop_found: bool = False  # leave out what confident learning over TF-IDF takes for wrong, see `data/annotation.py`
    seconds: float = 10.0  # of a person's work per label
    wage: float = 20.0  # price of an hour of it

    def __post_init__(self):
        if self.labels is not None and self.labels < 2:
            raise ValueError(f"labels must be at least 2, got {self.labels}")
        if not 0.0 <= self.noise < 1.0:
            raise ValueError(f"noise must be in [0, 1), got {self.noise}")
        if self.seconds < 0.0 or self.wage < 0.0:
            raise ValueError(f"seconds and wage must not be negative, got {self.seconds} and {self.wage}")
        if self.seed is not None and not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2^32), got {self.seed}")


@dataclass(frozen=True)
class PseudoConfig:
    """Self-training: a teacher's answers to the texts without labels are labels too; see `objectives/pseudo.py`."""

    __pydantic_config__ = STRICT

    run: str  # the teacher's folder, a run on the same data and labels
    threshold: float = 0.9  # what it is less sure of is left out
    share: float | None = None  # in its place: of the texts of each class that it names, so many, the surest
    strength: float = 1.0  # of the pseudo-labels' loss beside that of the labels; 0: the plain run
    soft: bool = False  # learn its probabilities, not only its best class
    rows: int | None = None  # pseudo-labelled texts per step, beside the batch; None: train.batch_size

    def __post_init__(self):
        if not 0.0 <= self.threshold <= 1.0 or self.strength < 0.0:
            raise ValueError(
                f"threshold must be in [0, 1], strength not negative: {self.threshold} and {self.strength}"
            )
        if self.share is not None and not 0.0 < self.share <= 1.0:
            raise ValueError(f"share must be above 0 and at most 1, got {self.share}")
        if self.share is not None and self.threshold != PseudoConfig.threshold:
            raise ValueError("threshold says nothing beside share: leave one of them out")
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"rows must be at least 1, got {self.rows}")


@dataclass(frozen=True)
class ConsistencyConfig:
    """Two views of one text should get one answer; see `objectives/consistency.py`."""

    __pydantic_config__ = STRICT

    # texts without labels, one view noised; or the batch, two draws of dropout
    method: Literal["uda", "r_drop"] = "uda"
    strength: float = 1.0  # of its term; 0: the plain run
    rows: int | None = None  # uda: texts without labels per step; None: train.batch_size
    threshold: float = 0.8  # uda: answers that the model is less sure of teach nothing
    temperature: float = 0.4  # uda: below 1 it sharpens the answers that teach
    token_rate: float = 0.1  # uda: share of a text's tokens that another text's tokens replace

    def __post_init__(self):
        if self.strength < 0.0 or not self.temperature > 0.0:
            raise ValueError(f"strength must be from 0, temperature above 0: {self.strength} and {self.temperature}")
        if not 0.0 <= self.threshold <= 1.0 or not 0.0 <= self.token_rate < 1.0:
            raise ValueError(f"threshold must be in [0, 1], token_rate in [0, 1): {self.threshold}, {self.token_rate}")
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"rows must be at least 1, got {self.rows}")
        defaults = {"rows": None, "threshold": 0.8, "temperature": 0.4, "token_rate": 0.1}
        for name, default in defaults.items():
            if self.method == "r_drop" and getattr(self, name) != default:
                raise ValueError(f"{name} says nothing to r_drop: leave it out")


@dataclass(frozen=True)
class ContrastiveConfig:
    """Which texts should lie close to each other, and which not; see `objectives/contrastive.py`."""

    __pydantic_config__ = STRICT

    strength: float = 1.0  # beside classify: of the supervised term; 0: the plain run
    temperature: float = 0.1  # what cosines are divided by; SimCSE's authors take 0.05
    pooling: Literal["mean", "first"] = "mean"  # a text's vector: the mean over its tokens, or the class token

    def __post_init__(self):
        if self.strength < 0.0 or not self.temperature > 0.0:
            raise ValueError(f"strength must be from 0, temperature above 0: {self.strength} and {self.temperature}")


def refuse_few(experiment: Any, where: str) -> None:
    """Checks the four sections of an experiment against the others. Raises: UserError."""
    objective, kind = experiment.objective.name, experiment.model.get("kind", "gpt")
    found = {name: getattr(experiment, name) for name in ("annotation", "pseudo", "consistency", "contrastive")}
    text = objective == "classify" and bool(experiment.data.labels)
    for name in [name for name, section in found.items() if section is not None]:
        words = name == "annotation" and objective == "pattern"
        if not text and not words and not (name == "contrastive" and objective == "simcse"):
            message = f"{name} says nothing to the objective {objective!r} on {experiment.data.source}"
            raise UserError(message, f"{where}: {name}", "leave it out, or classify texts with data.labels")
    annotation, pseudo, consistency, contrastive = found.values()
    uda = consistency is not None and consistency.method == "uda"
    if (annotation is None or annotation.labels is None) and (pseudo is not None or uda):
        message = "every training text has a label, so that none is left to learn from without"
        raise UserError(message, f"{where}: annotation.labels", "set it to how many texts have labels")
    if contrastive is not None and kind != "bert":
        message = f"its vectors need a model that reads both ways, {kind} is none"
        raise UserError(message, f"{where}: contrastive", "use a bert")
    dropout = experiment.model.get("dropout", 0.1 if kind == "bert" else 0.0)
    if dropout == 0.0 and (objective == "simcse" or (consistency is not None and not uda)):
        message = "the two views of a text differ by dropout alone, which is 0"
        raise UserError(message, f"{where}: model.dropout", "set it above 0")
    if contrastive is not None and consistency is not None and not uda:
        message = "r_drop reads the batch twice, the contrastive term once"
        raise UserError(message, f"{where}: consistency.method", "use one of the two")
    if experiment.adversarial is not None and (pseudo is not None or consistency is not None or objective == "simcse"):
        message = "an adversary changes the embeddings of one batch, and here other rows are read beside it"
        raise UserError(message, f"{where}: adversarial", "leave it out")
    _refuse_shards(experiment, where)


def _refuse_shards(experiment: Any, where: str) -> None:
    """Examples that interact cannot be parted; rows beside the batch are parted as the batch is."""
    train, mesh, contrastive = experiment.train, experiment.mesh, experiment.contrastive
    interact = experiment.objective.name == "simcse" or (contrastive is not None and contrastive.strength > 0.0)
    if interact and train.shards > 1:
        message = "in a contrastive loss each text meets all others of its batch, which shards would part"
        raise UserError(message, f"{where}: train.shards", "set it to 1: mesh.data may split such a batch")
    for name in ("pseudo", "consistency"):
        rows = getattr(getattr(experiment, name), "rows", None)
        parts = max(train.shards, mesh.data)
        if rows is not None and rows % parts:
            message = f"{rows} rows cannot be split into {parts} equal parts"
            raise UserError(message, f"{where}: {name}.rows", f"make it a multiple of {parts}")
