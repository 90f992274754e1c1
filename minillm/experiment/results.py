"""What a run is judged by: held-out likelihood, classical baselines of the same run, and samples."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from minillm import hosts
from minillm.config import Experiment, SampleConfig
from minillm.data import images
from minillm.data.tokenizer import EOS
from minillm.errors import UserError
from minillm.evaluation import compression, ngram, pixels
from minillm.evaluation.unigram import unigram_guess
from minillm.experiment import examples
from minillm.experiment.data import Data
from minillm.experiment.setup import Setup
from minillm.inference.generate import Sampling, generate
from minillm.sections.experiment import IMAGES, NEEDS


def evaluate(setup: Setup, experiment: Experiment, trainable, frozen, batches: list[dict]) -> dict[str, float]:
    """Means over fixed batches, each sum added on the host in float64: the objective's metrics, "loss" and "scored".

    loss: sum of coefficient * mean over the objective's terms, as in training, without label smoothing and z-loss.
    scored: how many tokens (images, pixels) the main metric is a mean of.
    """
    totals: dict[str, np.ndarray] = {}
    extra = setup.fresh_carry()
    for batch in batches:
        batch = hosts.place(batch, setup.shardings[2])
        found, extra = setup.eval_step(trainable, frozen, batch, extra)
        for name, pair in found.items():
            totals[name] = totals.get(name, 0.0) + np.array(pair, np.float64)
    means = {name: float(total / max(weight, 1e-9)) for name, (total, weight) in totals.items()}
    coefficients = experiment.objective.coefficients
    terms = {name.removeprefix("term/"): means.pop(name) for name in list(means) if name.startswith("term/")}
    loss = sum(coefficients.get(name, 1.0) * value for name, value in terms.items())
    scored = float(totals[NEEDS[experiment.objective.name].metric][1])
    return means | {"loss": loss, "scored": scored}


def held_out(found: dict[str, float], experiment: Experiment, data: Data, split: str) -> dict[str, float]:
    """`evaluate`'s means as a reader wants them: with perplexity, and bits per raw character where that is a likelihood."""
    result = {name: value for name, value in found.items() if name != "scored"}
    if experiment.objective.name == "causal":
        return describe_likelihood(found["nll"], found["scored"], data, split) | result
    if "nll" in found and not data.documents and NEEDS[experiment.objective.name].unit == "tokens":
        result["perplexity"] = math.exp(min(found["nll"], 700.0))
    return result


def describe_likelihood(nll: float, tokens: float, data: Data, split: str) -> dict[str, float]:
    """nats per token -> perplexity and bits per raw held-out character."""
    result = {"nll": nll, "perplexity": math.exp(min(nll, 700.0))}
    characters = sum(map(len, data.texts.get(split, ())))
    if characters:
        result["bits_per_character"] = nll * tokens / math.log(2.0) / characters
    return result


def baselines(experiment: Experiment, data: Data, split: str) -> dict[str, dict[str, float]]:
    """What a classical model of the same text reaches on the same held-out part, by name.

    Left to right: unigram, interpolated Kneser-Ney n-grams over the same tokens, xz over the same characters. Masked
    and removed tokens: their frequency. Copy and reverse: what one expects who knows everything but the string. Images:
    see `evaluation/pixels.py`.
    """
    name = experiment.objective.name
    if experiment.data.source in IMAGES:
        return _image_baselines(experiment, data, split)
    if not data.texts:
        return {"guessing": _guessing(experiment)}
    if name != "causal":
        # sentinels, the mask token and what frames a row are never asked for, but a span may hold a document's end
        possible = np.arange(data.vocabulary) >= (EOS if name == "span" else EOS + 1)
        possible &= np.arange(data.vocabulary) < data.tokenizer.vocabulary
        weights = "removed" if name == "span" else "weights"
        loss, accuracy = unigram_guess(data.tokens["train"], data.evaluation(split), weights, possible)
        if name == "span":
            return {"unigram": {"removed_nll": loss, "recovered": accuracy}}
        return {"unigram": {"nll": loss, "perplexity": math.exp(loss), "accuracy": accuracy}}
    results: dict[str, dict[str, float]] = {}
    for order in experiment.baselines.orders:
        model = ngram.fit(data.tokens["train"], order, data.vocabulary)
        nats, tokens = ngram.negative_log_likelihood(model, data.tokens[split])
        name = "unigram" if order == 1 else f"{order}-gram"
        results[name] = describe_likelihood(nats / tokens, tokens, data, split)
    if experiment.baselines.xz:
        ratio = compression.xz_bits_per_character("".join(data.texts["train"]), "".join(data.texts[split]))
        results["xz"] = {"bits_per_character": ratio}
    return results


def _image_baselines(experiment: Experiment, data: Data, split: str) -> dict[str, dict[str, float]]:
    parts = [images.split(images.digits(), name) for name in ("train", split)]
    if experiment.objective.name == "classify":
        return pixels.classifiers(*parts)
    training = {"images": parts[0].images, "clean": parts[0].images}
    if experiment.objective.name == "denoising":
        section = experiment.objective
        training = images.corrupt_pixels(training, examples.EVALUATION, 2**31, section.noise, section.noise_rate)
    return pixels.restorers(training, data.evaluation(split), experiment.model.get("code"))


def _guessing(experiment: Experiment) -> dict[str, float]:
    """Symbols at random and then the end; strings of a source are 1 to `copy_length` long, each length equally likely."""
    n = experiment.data.copy_length
    symbols = n if experiment.objective.name == "causal" else (n + 1) / 2
    loss = symbols / (symbols + 1) * math.log(experiment.data.symbols)
    return {"nll": loss, "perplexity": math.exp(loss)}


def refuse_surrogates(prompts: Sequence[str]) -> None:
    """Raises: UserError where a prompt holds bytes that were no text."""
    if any("\ud800" <= character <= "\udfff" for prompt in prompts for character in prompt):
        raise UserError("it is not valid UTF-8", "prompt", "type it in the terminal's encoding, or set a UTF-8 locale")


def encode_prompts(tokenizer: Any, prompts: Sequence[str], context: int) -> list[list[int]]:
    """bos and each prompt's tokens. Raises: UserError where one is unknown, or leaves no room in the context."""
    refuse_surrogates(prompts)
    encoded = [[tokenizer.bos, *tokenizer.encode(prompt)] for prompt in prompts]
    for prompt, ids in zip(prompts, encoded, strict=True):
        if tokenizer.unk in ids:
            raise UserError(f"the tokenizer does not know {tokenizer.unknown(prompt)}", "prompt", "leave it out")
        if len(ids) >= context:
            raise UserError(f"a prompt of {len(ids)} tokens fills the context of {context}", "prompt", "shorten it")
    return encoded


def draw_samples(setup: Setup, params, tokenizer: Any, settings: SampleConfig) -> list[dict[str, str]]:
    """One continuation per prompt. Raises: UserError where prompt and continuation do not fit into the context."""
    encoded = encode_prompts(tokenizer, settings.prompts, setup.config.context)
    sampling = Sampling(settings.temperature, settings.top_k or 0, settings.top_p or 1.0)
    rows = generate(
        setup.module, setup.config, params, encoded, settings.tokens,
        key=jax.random.key(settings.seed), sampling=sampling, stop=(tokenizer.eos,),
    )  # fmt: skip
    return [{"prompt": p, "text": tokenizer.decode(row)} for p, row in zip(settings.prompts, rows, strict=True)]
