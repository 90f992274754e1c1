# %% [markdown]
# # 28 Dialogue and generation: sampling, beam, cache
#
# **Sections:** 1.3.4, 1.6, 1.6.4, 1.6.5, 2.3.4, 2.6.3, 3.3.4, 3.6, 3.6.1, 4.6.3
#
# - **You will be able to:** compute temperature, top-k and top-p on paper, prove a cache equal to none, say what greedy, beam and sampling do to
#   replies, choose among ready replies and judge that, and hand a customer over to a person when the model is unsure.
# - **Prerequisites:** 08 (GPT), 11 (T5: beams), 17 (metrics). **Time:** 45 minutes to read; the script takes about 25 s on two cores.
# - **Expected:** distinct-2 of replies to held-out turns: greedy and beam 0.23, top-p 0.92, people 0.90. The right one of ten replies comes first
#   in 13 % by likelihood, 20 % less what it has anyway, 43 % by TF-IDF. A router that is right on 79 % is right on 97 % of the half that it is
#   surest of.
#
# ## The question
# Dialogue is on every list of uses (1.3.4, 1.6, 2.3.4, 3.3.4, 3.6), in tutoring (2.6.3) and customer service (4.6.3), and text generation beside it
# (1.6.5, 3.6.1). 1.6.4 writes replies with BERT. An encoder alone writes nothing: it can choose among ready replies; a decoder such as GPT can
# write one, and can choose too, by how likely it finds each. What is likely, though, need not be a good reply. How should one draw from
# a distribution, and how does one see that the replies are any good?
# ## The maths: from logits to a token
# Logits (2, 1, 0) are the probabilities (0.665, 0.245, 0.090).
#
# | way | rule | here |
# | --- | --- | --- |
# | greedy | the most likely token | always the first |
# | temperature $T$ | softmax of logits / $T$ | $T = 0.5$: (0.867, 0.117, 0.016) |
# | top-k (Fan et al. 2018) | keep the $k$ most likely | $k = 2$: (0.731, 0.269, 0) |
# | top-p (Holtzman et al. 2020) | keep the smallest set whose sum is at least $p$ | $p = 0.9$: 0.665 + 0.245 suffice: (0.731, 0.269, 0) |
# | beam (Wu et al. 2016) | the best few beginnings at every step, $\log p(Y) / lp(|Y|)$ | a search, no draw |
#
# Why search? Say A has 0.6 and B 0.4, but after A the best word has 0.3, after B 0.9. Greedy says A, with 0.18 in all; B would have had 0.36: two
# beams find it. **Distinct-n** is the number of different n-grams over that of all (Li et al. 2016): "I do not know" twice has 4 / 8 words.

# %%
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt

from minillm import params
from minillm.course.record import figure_path, report
from minillm.data import batches, clean, clean_labelled, corpora, stratify, tokenizer
from minillm.evaluation import coverage, replies, textual
from minillm.inference.beam import Beam, beam_search
from minillm.inference.generate import Sampling, filter_logits, generate
from minillm.inference.prompting import score_rows
from minillm.models import gpt
from minillm.models.contract import bind
from minillm.objectives.causal import causal
from minillm.training.optimizer import OptimizerConfig, make_optimizer
from minillm.training.step import init_state, make_gradient, make_train_step
from minillm.tuning.freeze import full

shares = lambda *settings: np.asarray(jax.nn.softmax(filter_logits(jnp.array([[2.0, 1.0, 0.0]]), Sampling(*settings))))[
    0
]
assert np.allclose(shares(1.0), [0.665, 0.245, 0.090], atol=1e-3)
assert np.allclose(shares(0.5), [0.867, 0.117, 0.016], atol=1e-3)
assert np.allclose(shares(1.0, 2), [0.731, 0.269, 0.0], atol=1e-3)
assert np.allclose(shares(1.0, 0, 0.9), [0.731, 0.269, 0.0], atol=1e-3)
assert replies.distinct(["I do not know", "I do not know"], 1) == 4 / 8
numbers = {"top-p 0.9 on paper": shares(1.0, 0, 0.9)[0]}

# %% [markdown]
# ## A small talker
# The chatterbot corpus has 2,393 English turns with replies, of which 1,257 are different: its technical support is ten pairs in a thousand copies. A
# GPT of two layers reads the different ones, each as "turn, line break, reply, end", packed so that none sees another.
#
# First the cache. `generate` keeps keys and values of what it has read (lesson 08). Without it, the whole row is read again for each token:

# %%
CONTEXT, NEW, STEPS = 64, 24, 220
documents, _ = clean.clean(corpora.read("dialogue-en"))
parts = clean.split(documents, validation=0.15, test=0.0, seed=0)
texts = [document.text for document in parts.train]
tokenizer.train(texts, 900, "bpe", model_file=figure_path("28", "tokenizer.model"))
pieces = tokenizer.load(figure_path("28", "tokenizer.model"))
ids = [np.array([pieces.bos, *found, pieces.eos], np.int32) for found in pieces.encode_many(texts)]
stream = batches.make_dataset(ids, CONTEXT, "packed")
CONFIG = gpt.Config(pieces.vocabulary, CONTEXT, layers=2, width=96, heads=4, position="rotary", init_scale=0.04)
MODEL, table, tuning = bind(gpt, CONFIG), gpt.param_specs(CONFIG), full()
optimizer = make_optimizer(OptimizerConfig(learning_rate=4e-3, warmup_steps=20), STEPS, params.decay_mask(table))
step_of = jax.jit(make_train_step(make_gradient(causal, MODEL, tuning, {}), optimizer, tuning, {}))
trainable, frozen, extra = tuning.init(params.init_params(table, jax.random.key(0)), jax.random.key(0))
state = init_state(trainable, extra, optimizer)
for step in range(STEPS):
    state, metrics = step_of(state, frozen, batches.batch_at(stream, 0, step, 16), jax.random.key(0))
weights = state.trainable


@jax.jit
def read_again(tokens):
    """Logits of whole rows, without a cache."""
    return gpt.logits(weights, gpt.apply(weights, {"tokens": tokens}, CONFIG).hidden)


def naive_greedy(prompt, count):
    """One token after the other, each time from the beginning; what stands behind a row is not seen."""
    row = list(prompt)
    for _ in range(count):
        padded = np.zeros((1, CONTEXT), np.int32)
        padded[0, : len(row)] = row
        row.append(int(np.asarray(read_again(padded))[0, len(row) - 1].argmax()))
    return row[len(prompt) :]


start = [pieces.bos, *pieces.encode("What is AI?\n")]
cached = generate(gpt, CONFIG, weights, [start], NEW, key=jax.random.key(0), sampling=Sampling(0.0))[0]
assert cached == naive_greedy(start, NEW)

# %% [markdown]
# **Predict before you run.** Which way gives the likeliest replies, and which the most varied? Which of them looks most like people, by distinct-2?
# ## Six ways to answer 150 held-out turns
# For each: distinct-1 and distinct-2 of all replies together, the share of replies in which a pair of words comes twice, and the mean log-probability
# of a token under the model itself. Sampling with three seeds.

# %%
pairs = [text.split("\n", 1) for text in (document.text for document in parts.validation)][:150]
turns, true = (list(column) for column in zip(*pairs, strict=True))
fit = lambda row: row[: CONTEXT - NEW]
prompts = [fit([pieces.bos, *pieces.encode(f"{turn}\n")]) for turn in turns]
WAYS = {
    "greedy": Sampling(0.0), "temperature 0.7": Sampling(0.7), "temperature 1": Sampling(1.0), "top-k 10": Sampling(1.0, 10),
    "top-p 0.9": Sampling(1.0, 0, 0.9),
}  # fmt: skip


def likelihood(befores, said):
    """log p of each reply and its end, given what stands before."""
    found = [[*before, *pieces.encode(reply), pieces.eos] for before, reply in zip(befores, said, strict=True)]
    starts = [len(before) for before in befores]
    return score_rows(MODEL.apply, MODEL.logits, weights, found, starts, pad=pieces.pad, context=CONTEXT)


def repeats(reply):
    """Whether two words stand side by side twice."""
    words = reply.split()
    found = list(itertools.pairwise(words))
    return len(set(found)) < len(found)


def measure(said):
    """What a way's replies are like."""
    sizes = np.array([len(pieces.encode(reply)) + 1 for reply in said])
    return {
        "distinct-1": replies.distinct(said, 1), "distinct-2": replies.distinct(said, 2),
        "repeats": np.mean([repeats(reply) for reply in said]), "log p per token": likelihood(prompts, said).sum() / sizes.sum(),
    }  # fmt: skip


def write(sampling, seed):
    """A reply per turn."""
    new = generate(gpt, CONFIG, weights, prompts, NEW, key=jax.random.key(seed), sampling=sampling, stop=(pieces.eos,))
    return [pieces.decode(row) for row in new]


found = {
    name: [measure(write(way, seed)) for seed in ((0,) if name == "greedy" else (0, 1, 2))]
    for name, way in WAYS.items()
}
hypotheses = beam_search(gpt, CONFIG, weights, prompts, NEW, Beam(4, 0.6, pieces.eos))
found["beam of 4"] = [measure([pieces.decode(row[0].tokens) for row in hypotheses])]
found["people"] = [measure(true)]
mean = lambda name, key: float(np.mean([row[key] for row in found[name]]))
numbers |= {f"{key}, {name}": mean(name, key) for name in found for key in ("distinct-2", "repeats", "log p per token")}
assert mean("greedy", "distinct-2") < min(row["distinct-2"] for row in found["temperature 1"])
assert mean("beam of 4", "log p per token") > mean("people", "log p per token")

# %% [markdown]
# What the model finds most likely, it says to everyone: greedy and beam. Sampling is as varied as people are, which says nothing of sense.
# ## Choosing a ready reply
# A service would rather choose among checked replies. Each held-out turn gets its own reply and nine others; recall at 1 and 5 of ten (chance:
# 10 %, 50 %). The likeliest reply is one that suits everything, so one may subtract what it has without the turn: $\log p(r \mid t) - \log p(r)$
# (PMI, Li et al. 2016).

# %%
rows = replies.draw_candidates(true, [text.split("\n", 1)[1] for text in texts], 10, 0)
flat, shape = [reply for row in rows for reply in row], (len(rows), 10)
befores = [before for before in prompts for _ in range(10)]
given = likelihood(befores, flat)
alone = likelihood([[pieces.bos, *pieces.encode("\n")]] * len(flat), flat)
scores = {
    "likelihood": given.reshape(shape), "PMI": (given - alone).reshape(shape),
    "TF-IDF": replies.tfidf_scores([text.replace("\n", " ") for text in texts], turns, rows),
}  # fmt: skip
numbers |= {f"recall at {k}, {name}": replies.recall_at(table_, k) for name, table_ in scores.items() for k in (1, 5)}

# %% [markdown]
# ## Routing, and knowing when to hand over
# Before a reply comes the question what it is about (4.6.3). The corpus has its files' topics, nine of them with enough different questions; they
# are topics, not wishes of customers. TF-IDF with logistic regression names them and says how sure it is. Whoever answers only what is surest, and
# hands the rest to a person, buys accuracy with coverage. (`configs/intents.toml` tunes the real MiniLM on them.)

# %%
topics, _ = clean_labelled.clean_labelled(corpora.read("intents-en"))
names = sorted({document.label for document in topics})
asked = stratify.split_labelled(topics, validation=0.15, test=0.3, seed=0)
examples = lambda part: textual.Examples([d.text for d in part], np.array([names.index(d.label) for d in part]))
router = textual.fit_tfidf(examples(asked.train), examples(asked.validation), len(names))
test = examples(asked.test)
sure = router.predict(test.texts)
curve = coverage.accuracy_at(test.labels, sure)
numbers["accuracy of all"] = curve[0]["accuracy"]
numbers["accuracy of the surest half"] = curve[5]["accuracy"]
figure, (left, panel) = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
for name, values in found.items():
    for row in values:
        left.plot(
            row["log p per token"], row["distinct-2"], "o", color="black" if name == "people" else "tab:blue", alpha=0.6
        )
    side = (-8, -14) if name == "greedy" else (6, 4)
    place = mean(name, "log p per token"), mean(name, "distinct-2")
    left.annotate(name, place, side, textcoords="offset points", fontsize=9)
left.margins(x=0.15)
left.set(
    xlabel="log-probability of a token under the model (nats)", ylabel="distinct-2", title="replies: likely or varied"
)
panel.plot([100 * row["coverage"] for row in curve], [100 * row["accuracy"] for row in curve], "o-")
panel.set(
    xlabel="answered (%), the surest first", ylabel="right among the answered (%)", title="topics: what one hands over"
)
figure.savefig(figure_path("28", "replies.png"), dpi=120)
report("28", numbers)

# %% [markdown]
# ## What to read from the figures
# Left: ways to write lie on a line from likely to varied, greedy and beam at its likely end; temperature, top-k and top-p move along it. People stand
# above the line: as varied as top-p, and yet likelier for this model. Its own variety comes from a tail that people do not use, and cutting the tail
# off costs variety. Beams repeat within a reply less than greedy does, and from reply to reply as much. Right: the surer half is answered nearly
# without a mistake, though the very surest no better; the price is the other half.
# By likelihood the right reply is found about as often as by chance; less what it has anyway (PMI), more often. TF-IDF finds best at first place
# where turn and reply share words, and nothing where they do not.
# ## What this toy does not show
# - A conversation: it has a thousand pairs, no memory of earlier turns, and no knowledge of the world. Large models hold both in their context.
# - That likely is bad: beams help where the answer is nearly fixed by the input, as in translation (lesson 27).
# - Customers: topics of a corpus are not intents, and a wrong route has a price that accuracy does not know.
# ## Exercises: `minillm lessons check 28`, with `--hints` for help
# 1. `nucleus(probabilities, share)` · 15 minutes, easy · keep the smallest likely set.
# 2. `distinct(replies, n)` · 10 minutes, easy · how varied replies are, all together.
# ## Recap
# A cache changes time, not tokens. Greedy and beam say what is likely, sampling what is varied; top-k and top-p cut the tail off. Replies can be
# chosen as well as written. A router that knows when it is unsure hands over.
# - **Glossary:** dialogue 对话 · reply 回复 · greedy decoding 贪心解码 · beam search 束搜索 · temperature 温度 · nucleus sampling 核采样 ·
#   repetition 重复 · intent 意图 · coverage 覆盖率 · hand-over 转人工
# - **Common errors:** the token that crosses p left out · distinct-n as a mean over replies · the right reply first among equals counted as found ·
#   copies of a pair in both parts · accuracy without coverage.
# - **Next:** lesson 29, a real pretrained BERT.
