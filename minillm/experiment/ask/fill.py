"""Prompts with gaps, "The <mask> of a class": what masked and span models write in place of a continuation."""

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from minillm.config import Experiment
from minillm.data.spans import is_sentinel
from minillm.errors import UserError
from minillm.experiment.examples import masking_settings, span_settings, text_ids
from minillm.experiment.results import refuse_surrogates
from minillm.experiment.setup import Setup
from minillm.inference.generate import Sampling, generate

GAP = "<mask>"
GREEDY = Sampling(temperature=0.0)
LONGEST = 32  # tokens that a span model may write for one prompt


class Gaps(NamedTuple):
    """A prompt with gaps: its ids with a mask token or a sentinel in each, where they stand, and the text around them."""

    ids: list[int]
    places: list[int]
    parts: list[str]


def encode_gaps(experiment: Experiment, setup: Setup, tokenizer: Any, prompts: Sequence[str]) -> list[Gaps]:
    """Raises: UserError for a prompt without a gap, with too many or unknown characters, or longer than the context."""
    refuse_surrogates(prompts)
    spans = experiment.objective.name == "span"
    vocabulary = setup.config.vocabulary
    settings = (
        span_settings(experiment, vocabulary)
        if spans
        else masking_settings(experiment, text_ids(experiment, vocabulary, tokenizer))
    )
    found = []
    for prompt in prompts:
        *before, last = prompt.split(GAP)
        if not before:
            raise UserError(f"nothing to fill in: {prompt!r}", "prompt", f"write {GAP} where a word is missing")
        if spans and len(before) > settings.sentinels:
            message = f"{len(before)} gaps, the model knows {settings.sentinels}"
            raise UserError(message, "prompt", "use fewer, or train with longer examples")
        parts = [part.removesuffix(" ") for part in before] + [
            last
        ]  # a space belongs to the word behind it: to the gap
        ids, places = [] if spans else [tokenizer.bos], []
        for number, part in enumerate(parts):
            if number:
                places.append(len(ids))
                ids.append(settings.sentinel - number + 1 if spans else settings.mask)
            ids += tokenizer.encode(part)
        ids.append(tokenizer.eos)
        if tokenizer.unk in ids:
            raise UserError(f"the tokenizer does not know {tokenizer.unknown(prompt)}", "prompt", "leave it out")
        if len(ids) > setup.config.context:
            message = f"a prompt of {len(ids)} tokens is longer than the context of {setup.config.context}"
            raise UserError(message, "prompt", "shorten it")
        found.append(Gaps(ids, places, parts))
    return found


def fill(experiment: Experiment, setup: Setup, params, tokenizer: Any, prompts: Sequence[str]) -> list[dict[str, str]]:
    """Each prompt with its gaps filled in, in brackets. Raises: UserError as `encode_gaps` does."""
    answer = _spans if experiment.objective.name == "span" else _masked
    encoded = encode_gaps(experiment, setup, tokenizer, prompts)
    rows = [_join(gaps.parts, answer(experiment, setup, params, tokenizer, gaps)) for gaps in encoded]
    return [{"prompt": prompt, "text": f"\n→ {row}"} for prompt, row in zip(prompts, rows, strict=True)]


def gaps(experiment: Experiment, setup: Setup, tokenizer: Any, texts: Sequence[str], count: int = 3) -> list[str]:
    """Prompts made of the first words of held-out documents, the middle one left out, as far as they fit."""
    prompts = []
    for text in texts[:count]:
        glue = " " if " " in text.strip()[:60] else ""  # Chinese: characters
        words = text.split()[:15] if glue else list(text.strip()[:30])
        while len(words) > 3 and len(tokenizer.encode(glue.join(words))) > setup.config.context // 2:
            words.pop()
        if len(words) < 3:
            continue
        words[len(words) // 2] = GAP
        prompt = glue.join(words)
        with contextlib.suppress(UserError):  # one word may be longer than the context
            encode_gaps(experiment, setup, tokenizer, [prompt])
            prompts.append(prompt)
    return prompts


def _masked(experiment: Experiment, setup: Setup, params, tokenizer: Any, gaps: Gaps) -> list[str]:
    """The most likely token at each gap, all gaps at once."""
    settings = masking_settings(experiment, text_ids(experiment, setup.config.vocabulary, tokenizer))
    row = np.zeros((1, setup.config.context), np.int32)
    row[0, : len(gaps.ids)] = gaps.ids
    batch = {"tokens": jnp.asarray(row), "mask": jnp.arange(row.shape[1])[None] < len(gaps.ids)}
    hidden = setup.tuning.wrap(setup.model).apply(params, batch).hidden[:, np.array(gaps.places)]
    scores = setup.model.logits(params, hidden)[0].at[:, np.array(settings.special)].set(-jnp.inf)
    return [tokenizer.decode([int(token)]) for token in scores.argmax(-1)]


def _spans(experiment: Experiment, setup: Setup, params, tokenizer: Any, gaps: Gaps) -> list[str]:
    """What the decoder writes after each sentinel, greedily."""
    settings = span_settings(experiment, setup.config.vocabulary)
    (row,) = generate(
        setup.module, setup.config, params, [[settings.begin]], min(LONGEST, setup.config.context - 1),
        key=jax.random.key(0), sampling=GREEDY, stop=(settings.end,), sources=[gaps.ids],
    )  # fmt: skip
    written = np.array(row, np.int32)
    pieces = np.split(written, np.flatnonzero(is_sentinel(written, settings)))
    found = {int(piece[0]): tokenizer.decode(piece[1:]) for piece in pieces[1:]}
    return [found.get(settings.sentinel - number, "") for number in range(len(gaps.places))]


def _join(parts: list[str], answers: list[str]) -> str:
    shown = lambda answer: answer.strip() or ("␣" if answer else "nothing")
    filled = (
        f"{' ' * answer.startswith(' ')}[{shown(answer)}]{part}"
        for answer, part in zip(answers, parts[1:], strict=True)
    )
    return parts[0] + "".join(filled)
