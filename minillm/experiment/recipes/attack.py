"""What is left of a classifier's accuracy when its input is changed on purpose, beside that of the baselines.

    fgm, pgd                  the embeddings move uphill in the loss of the true label, by at most `strength` per example
    swap, delete, synonyms    the text is reworded at random `tries` times; it counts as right where the answers to it and all of these are

The first two need the model's own gradient (a white box); baselines have no embeddings and stand beside the others only.
Random rewordings are the weakest of attacks: who searches for the worst words finds worse ones.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from minillm.config import Experiment
from minillm.data import augment, rows
from minillm.data.document import Document
from minillm.evaluation import intervals
from minillm.experiment import supervised
from minillm.experiment.examples import EVALUATION
from minillm.experiment.recipes import augmenting
from minillm.experiment.setup import Setup
from minillm.objectives.supervised import classify, head_scores
from minillm.sections.adversarial import EMBEDDING, TEXT
from minillm.training.adversarial import ascend, own_places, perturbed


class Victim(NamedTuple):
    """A trained classifier and what it takes to ask it. weights: (trainable, frozen)."""

    setup: Setup
    experiment: Experiment  # whose [attack] it is
    pieces: Any
    weights: tuple
    root: Path  # the run's folder


def measure(
    victim: Victim, documents: Sequence[Document], texts: Sequence[str], baselines: Mapping[str, Callable],
    only: str | None = None,
) -> dict[str, dict[str, dict[str, float]]]:  # fmt: skip
    """Attack -> who -> {"value", "low", "high"} of the accuracy that is left, 95 % by bootstrap; "" is the model itself.

    texts: of training, whose words may get synonyms from the base. baselines: name -> (texts, pairs) -> probabilities.
    only: one attack's name; None: all that [attack] has.
    """
    section = victim.experiment.attack
    place = (victim.experiment, victim.root, victim.pieces, texts)
    thesaurus = augmenting.read_thesaurus(section.thesaurus, *place) if section.synonyms else {}
    found = {}
    for method, right in under_attack(victim, documents, thesaurus, baselines, only).items():
        metric = lambda weights, right=right: {who: weights @ hits / weights.sum(1) for who, hits in right.items()}
        found[method] = intervals.bootstrap(metric, len(documents))
    return found


def under_attack(
    victim: Victim, documents: Sequence[Document], thesaurus: augment.Table, baselines: Mapping[str, Callable],
    only: str | None = None,
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Attack -> who -> which documents are still answered rightly, [documents] bool."""
    section = victim.experiment.attack
    labels = supervised.label_array(victim.experiment, documents)
    found = {}
    if section.strength:
        batches = _batches(victim, documents)
        for method in (name for name in EMBEDDING if only in (None, name)):
            scores = supervised.reader(victim.setup, _harmed(method, section.strength, section.steps))
            found[method] = {"": scores(*victim.weights, batches).argmax(1) == labels}
    score = supervised.scorer(victim.setup, victim.experiment)
    for method in (name for name in TEXT if getattr(section, name)):
        rewording = augment.Rewording(**{method: getattr(section, method)}, thesaurus=thesaurus)
        found[method] = dict.fromkeys(["", *baselines], np.ones(len(documents), bool))
        for time in range(section.tries + 1):  # the text itself comes last; all models get the same rewordings
            made = documents if time == section.tries else [
                augmenting.reworded(document, rewording, augment.noise(EVALUATION, time, place))
                for place, document in enumerate(documents)]  # fmt: skip
            texts = [document.text for document in made]
            pairs = None if made[0].pair is None else [document.pair for document in made]
            answers = {"": score(*victim.weights, _batches(victim, made))}
            answers |= {name: predict(texts, pairs) for name, predict in baselines.items()}
            for who, answer in answers.items():
                found[method][who] = found[method][who] & (answer.argmax(1) == labels)
    return found


def _batches(victim: Victim, documents: Sequence[Document]) -> list[dict]:
    dataset = supervised.make_rows(victim.experiment, victim.pieces, documents)
    return list(rows.row_evaluation_batches(dataset, victim.experiment.train.batch_size))


def _harmed(method: str, strength: float, steps: int) -> Callable:
    """(model, params, batch) -> scores where the embeddings have moved: one step of `strength`, or several shorter ones."""
    steps, size = (1, strength) if method == "fgm" else (steps, 2.5 * strength / steps)

    def read(model, params, batch):
        model = perturbed(model)
        shape = jax.eval_shape(model.embed, params, batch).shape
        loss = lambda change: classify(model, params, {**batch, "perturbation": change}).sums["loss"]
        start, own = jnp.zeros(shape, jnp.float32), own_places(batch, shape)
        change = ascend(jax.grad(loss), start, own, steps, size, strength)
        return head_scores(model, params, {**batch, "perturbation": change}, None, "classify")

    return read
