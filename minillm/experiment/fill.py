"""Prompts with gaps, "The <mask> of a class": what masked and span models write in place of a continuation."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from minillm.config import Experiment
from minillm.data.spans import is_sentinel
from minillm.errors import UserError
from minillm.experiment.examples import masking_settings, span_settings
from minillm.experiment.setup import Setup
from minillm.inference.generate import Sampling, generate

GAP = "<mask>"
GREEDY = Sampling(temperature=0.0)
LONGEST = 32  # tokens that a span model may write for one prompt


def fill(experiment: Experiment, setup: Setup, params, tokenizer: Any, prompts: Sequence[str]) -> list[dict[str, str]]:
    """Each prompt with its gaps filled in, in brackets. Raises: UserError for a prompt without a gap, or a long one."""
    for prompt in prompts:
        if GAP not in prompt:
            raise UserError(f"nothing to fill in: {prompt!r}", "prompt", f"write {GAP} where a word is missing")
    answer = _spans if experiment.objective.name == "span" else _masked
    rows = [answer(experiment, setup, params, tokenizer, _parts(prompt)) for prompt in prompts]
    return [{"prompt": prompt, "text": f"\n→ {row}"} for prompt, row in zip(prompts, rows, strict=True)]


def gaps(tokenizer: Any, texts: Sequence[str], room: int, count: int = 3) -> list[str]:
    """Prompts made of the first words of held-out documents, each with its middle word left out, in `room` tokens."""
    prompts = []
    for text in texts[:count]:
        words = text.split()[:15] if " " in text.strip()[:60] else list(text.strip()[:30])  # Chinese: characters
        glue = " " if " " in text.strip()[:60] else ""
        while len(words) > 3 and len(tokenizer.encode(glue.join(words))) > room:
            words.pop()
        if len(words) >= 3:
            words[len(words) // 2] = GAP
            prompts.append(glue.join(words))
    return prompts


def _parts(prompt: str) -> list[str]:
    """What stands around the gaps; the space before a word belongs to its piece, so to the gap."""
    *before, last = prompt.split(GAP)
    return [part.removesuffix(" ") for part in before] + [last]


def _masked(experiment: Experiment, setup: Setup, params, tokenizer: Any, parts: list[str]) -> str:
    """The most likely token at each gap, all gaps at once."""
    settings = masking_settings(experiment, setup.config.vocabulary)
    ids, places = [tokenizer.bos], []
    for number, part in enumerate(parts):
        if number:
            places.append(len(ids))
            ids.append(settings.mask)
        ids += tokenizer.encode(part)
    ids.append(tokenizer.eos)
    _refuse_long(len(ids), setup.config.context)
    row = np.zeros((1, setup.config.context), np.int32)
    row[0, : len(ids)] = ids
    batch = {"tokens": jnp.asarray(row), "mask": jnp.arange(row.shape[1])[None] < len(ids)}
    hidden = setup.model.apply(params, batch).hidden[:, np.array(places)]
    scores = setup.model.logits(params, hidden)[0].at[:, np.array(settings.special)].set(-jnp.inf)
    return _join(parts, [tokenizer.decode([int(token)]) for token in scores.argmax(-1)])


def _spans(experiment: Experiment, setup: Setup, params, tokenizer: Any, parts: list[str]) -> str:
    """What the decoder writes after each sentinel, greedily."""
    settings = span_settings(experiment, setup.config.vocabulary)
    if len(parts) - 1 > settings.sentinels:
        raise UserError(f"{len(parts) - 1} gaps, the model knows {settings.sentinels}", "prompt", "use fewer")
    source = tokenizer.encode(parts[0])
    for number, part in enumerate(parts[1:]):
        source += [settings.sentinel - number, *tokenizer.encode(part)]
    source.append(settings.end)
    _refuse_long(len(source), setup.config.context)
    room = min(LONGEST, setup.config.context - 1)
    (row,) = generate(
        setup.module, setup.config, params, [[settings.begin]], room,
        key=jax.random.key(0), sampling=GREEDY, stop=(settings.end,), sources=[source],
    )  # fmt: skip
    written = np.array(row, np.int32)
    pieces = np.split(written, np.flatnonzero(is_sentinel(written, settings)))
    found = {int(piece[0]): tokenizer.decode(piece[1:]) for piece in pieces[1:]}
    return _join(parts, [found.get(settings.sentinel - number, "") for number in range(len(parts) - 1)])


def _join(parts: list[str], answers: list[str]) -> str:
    filled = (
        f"{' ' * answer.startswith(' ')}[{answer.strip()}]{part}"
        for answer, part in zip(answers, parts[1:], strict=True)
    )
    return parts[0] + "".join(filled)


def _refuse_long(tokens: int, context: int) -> None:
    if tokens > context:
        raise UserError(f"a prompt of {tokens} tokens, the context is {context}", "prompt", "shorten it")
