# %% [markdown]
# # 09 BERT: masked language model, next sentence
#
# **Sections:** 1.2.1, 1.3, 1.3.1, 1.3.2, 1.4, 1.4.1, 1.4.2, 1.7.3, 2.2.1, 2.7.3, 3.2.1, 3.3.1, 3.3.2, 3.4, 3.4.3,
# 3.9.q2, 4.3.1, 4.7.3, 5.3.2, 5.3.2.1, 5.4.3
#
# - **You will be able to:** derive and compute the masked-LM loss, corrupt text as BERT does and say why, read `models/bert.py` and write its
#   forward pass, pretrain a BERT on masked words and sentence pairs, and judge it without flattering it.
# - **Prerequisites:** 06 (attention), 08 (GPT). **Time:** an hour to read; the script takes about 45 s on two cores.
# - **Expected:** loss on paper 1.04 · held-out gaps filled in by counting: always the same token 3 %, left neighbour 15 %, right 13 %, both 34 % ·
#   by a BERT of 1600 steps: 9 %; at all its targets 14 %, since 91 % of those left in place are right · next sentence 69 %, chance 50 %.
#
# ## The question
# GPT guesses each word from the words before it. But who reads "the ... of the list is 3" knows the gap from its right side. A model that may look
# both ways has a problem, though: if every word sees every other, it also sees the word that it should guess. What can then be the training signal?
#
# BERT's answer (Devlin et al. 2019) is an old school exercise, the cloze: hide some words, look at *everything else*, fill the gaps. Nobody labels
# anything: the text is its own answer. This is the self-supervision of 1.3.1 and 4.3.1, and with 1.3.2 and 3.3.2 it is step one of two: pretrain on
# plain text, then fine-tune on a task (lessons 18 and 19). GPT learns from the next token and T5 from spans (lesson 11), so 3.9.q2 is right about
# BERT, not about all large models. And BERT is no low-dimensional code (3.2.1): it keeps one vector of full width for every token.
# ## The maths
# Tokens $x_1 \dots x_n$; a random set $M$ of about 15 % of the places; $\tilde x$, the text with those places corrupted; $h_i$, the model's output
# at place $i$, a function of the whole $\tilde x$. With one row $w_v$ and one number $b_v$ per word $v$ of the vocabulary,
#
# $$L = -\frac{1}{|M|} \sum_{i \in M} \log p(x_i \mid \tilde x), \qquad
#   p(v \mid \tilde x) = \frac{e^{w_v \cdot h_i + b_v}}{\sum_u e^{w_u \cdot h_i + b_u}}$$
#
# By hand, vocabulary {cat, dog, sat}: "the [mask] [mask]", scores of the first gap (ln 2, 0, 0), of the second (0, 0, ln 2). The text was "the cat
# dog": p(cat) = 2/4, p(dog) = 1/4, L = (ln 2 + ln 4) / 2 = 1.5 ln 2 = 1.04 nats per masked token. "the" was not masked: it costs nothing.
#
# Three of the documents print another formula; the idea around it is right each time. 1.4.2 has no $x_i$ in it: whichever word was hidden, the loss
# is the same number, so nothing can be learned. 3.4.3 sums over the $n$ input places, not over the vocabulary, and reads the gap's neighbour's
# $h_1$, not the gap's own $h_2$. 5.4.3 *maximises* minus the log-odds $-\log(M / (1 - M))$; with $M = \sigma(z)$ that is just $-z$: every step
# drives the right answer away. (In 2.7.3, GPT-3's fame is for few-shot prompts; in 4.7.3, BERT's first author is Jacob Devlin.)

# %%
import math
from collections import Counter, defaultdict
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt

from minillm import params
from minillm.course.record import figure_path, report
from minillm.data import clean, corpora, masking, pairs, tokenizer
from minillm.models import bert
from minillm.models.contract import bind
from minillm.objectives.masked import masked, target_hidden, token_terms
from minillm.objectives.next_sentence import masked_next_sentence
from minillm.report.plot import COLOURS
from minillm.training.optimizer import OptimizerConfig, make_optimizer
from minillm.training.step import init_state, make_gradient, make_train_step
from minillm.tuning.freeze import full

scores = jnp.log(jnp.array([[[1.0, 1.0, 1.0], [2.0, 1.0, 1.0], [1.0, 1.0, 2.0]]]))  # [1 row, 3 places, 3 words]
truth, gaps = jnp.array([[0, 0, 1]]), jnp.array([[0.0, 1.0, 1.0]])
terms = token_terms("masked", scores, truth, gaps)
numbers = {"loss on paper": terms.sums["masked"] / terms.weights["masked"]}
printed = lambda z: -jnp.log(jax.nn.sigmoid(z) / (1.0 - jax.nn.sigmoid(z)))  # 5.4.3, to be maximised
assert np.allclose(jax.vmap(jax.grad(printed))(jnp.linspace(-3.0, 3.0, 7)), -1.0, atol=1e-4)  # uphill is always down

# %% [markdown]
# ## The corruption: 80, 10, 10
# Of the chosen places, 80 % show the mask token, 10 % a random word, 10 % the true one. Why not always the mask? In later use there are no masks. A
# model that only ever predicts at a mask may ignore what stands at visible places; here any word may be a wrong one, so each $h_i$ must weigh its
# own word against its surroundings. The choice is made anew whenever a row comes up, as a pure function of (seed, step).
# A row is `[class] A [separator] B [separator]`, with a learned vector added per side (`token_types`), for a second task: **next sentence**, is B
# what followed A, or a piece of another document? It is read off the class token. The two losses have different denominators, masked tokens and
# rows: once more sums with weights, added as L = masked + next sentence.

# %%
LENGTH, BATCH, STEPS, SEEDS, PROBES = 32, 32, 1600, (0, 1, 2), 2000
TOPICS = ("typesseq", "string-methods", "objects", "import", "with", "try", "imaginary")  # held out
documents, _ = clean.clean(corpora.read("python-docs"), drop_repeated_lines=True)
texts = [[" ".join(d.text.split()) for d in documents if (d.name in TOPICS) == held] for held in (False, True)]
tokenizer.train(texts[0], 1024, "bpe", model_file=figure_path("09", "tokenizer.model"))
pieces = tokenizer.load(figure_path("09", "tokenizer.model"))
MASK, VOCABULARY, SPECIAL = pieces.vocabulary, pieces.vocabulary + 1, (pieces.pad, pieces.unk, pieces.bos, pieces.eos)
encode = lambda text: [np.array(ids, np.int32) for ids in pieces.encode_many(pairs.split_sentences(text))]
train, held_out = ([encode(text) for text in part] for part in texts)
make = lambda part: pairs.make_pair_dataset(part, LENGTH, "next_sentence", class_token=pieces.bos, separator=pieces.eos)
train_pairs, held_pairs = make(train), make(held_out)
MASKING = masking.Masking(VOCABULARY, MASK, (*SPECIAL, MASK))
GAPS = int(masking.budget(LENGTH - 3, MASKING.rate))  # predictions per row, at most
mask_at = lambda data, seed, step, n: masking.mask_tokens(pairs.pair_batch_at(data, seed, step, n), seed, step, MASKING)
batch_at = lambda *arguments: masking.gather_targets(mask_at(*arguments), GAPS)  # scores only where one is needed
show = lambda ids: "".join("[mask]" if i == MASK else "|" if i < 4 else pieces.decode([i]) for i in ids)
before, after = pairs.pair_batch_at(train_pairs, 0, 0, PROBES), mask_at(train_pairs, 0, 0, PROBES)
print(show(before["tokens"][0]), show(after["tokens"][0]), sep="\n")
chosen, same = after["weights"] > 0, after["tokens"] == before["tokens"]
assert same[~chosen].all()
numbers["share chosen"] = chosen.sum() / (~np.isin(before["tokens"], SPECIAL)).sum()
numbers |= {"of these, masked": (after["tokens"] == MASK)[chosen].mean(), "of these, as before": same[chosen].mean()}
assert np.array_equal(masking.restore(after), before["tokens"])  # the answers undo the corruption

# %% [markdown]
# ## The model, and a naive version of it: `minillm/models/bert.py`
# Three differences from GPT's page: no causal mask, only padding is hidden; *post-norm*, the LayerNorm stands after each sum; a head of its own for
# the gaps, a dense layer and a norm before the transposed embedding. The naive version takes one row and loops over heads and over gaps.


# %%
def naive_losses(p: dict, row: dict, heads: int) -> list[float]:
    """A row of a batch -> -log p of every gap; one layer, in NumPy."""
    standard = lambda x: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    norm = lambda p, x: standard(x) * p["scale"] + p["bias"]
    line = lambda p, x: x @ p["kernel"] + p["bias"]
    gelu = lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / 2**0.5))
    real, layer, head = int(row["mask"].sum()), jax.tree.map(lambda leaf: leaf[0], p["blocks"]), p["masked"]
    attention, feedforward = layer["attention"], layer["feedforward"]
    tokens, types = row["tokens"][:real], row["token_types"][:real]  # without padding nothing needs hiding
    x = p["embedding"]["table"][tokens] + p["position"]["table"][:real] + p["token_type"]["table"][types]
    x = norm(p["embedding_norm"], x)  # [real, width]
    query, key, value = (line(attention[name], x) for name in ("query", "key", "value"))
    attended, size = [], x.shape[1] // heads
    for start in range(0, x.shape[1], size):
        q, k, v = (z[:, start : start + size] for z in (query, key, value))
        odds = np.exp(q @ k.T / size**0.5)
        attended.append(odds / odds.sum(1, keepdims=True) @ v)  # everyone sees everyone
    x = norm(layer["attention_norm"], x + line(attention["output"], np.concatenate(attended, axis=1)))
    x = norm(layer["feedforward_norm"], x + line(feedforward["down"], gelu(line(feedforward["up"], x))))
    losses = []
    for place in np.flatnonzero(row["weights"]):
        logits = p["embedding"]["table"] @ norm(head["norm"], gelu(line(head["transform"], x[place]))) + head["bias"]
        losses.append(np.log(np.exp(logits).sum()) - logits[row["targets"][place]])
    return losses


tiny = bert.Config(vocabulary=VOCABULARY, context=LENGTH, layers=1, width=16, heads=2, dropout=0.0)
noisy = lambda leaf: np.asarray(leaf + 0.1 * jax.random.normal(jax.random.key(1), leaf.shape))  # or all biases are zero
weights = jax.tree.map(noisy, params.init_params(bert.param_specs(tiny), jax.random.key(0)))
small = {name: leaf[:3] for name, leaf in after.items()}
slow = sum(sum(naive_losses(weights, {name: leaf[row] for name, leaf in small.items()}, heads=2)) for row in range(3))
fast = jax.jit(lambda batch: masked(bind(bert, tiny), weights, batch).sums["masked"])
assert np.allclose([fast(small), fast(masking.gather_targets(small, GAPS))], slow, rtol=1e-4)

# %% [markdown]
# ## Why both sides: counting first
# Probes: rows of held-out topics, each with *one* word under the mask. Before any network, count: the most frequent word of all, after the left
# neighbour, before the right one, between both (backing off to the left one, then to all). **Predict before you run:** left or right, which tells
# more? How much better are both together? Then: where does the loss of a BERT begin that knows nothing, with VOCABULARY = 1025?

# %%
random, rows = np.random.default_rng(9), np.arange(PROBES)
probes = pairs.pair_batch_at(held_pairs, 0, 0, PROBES)
place = np.where(np.isin(probes["tokens"], SPECIAL), 2.0, random.random(probes["tokens"].shape)).argmin(1)
left, answer, right = (probes["tokens"][rows, place + shift].tolist() for shift in (-1, 0, 1))
probes["tokens"][rows, place] = MASK
probes |= {"target_positions": place[:, None].astype(np.int32), "targets": np.array(answer, np.int32)[:, None]}
probes |= {"weights": np.ones((PROBES, 1), np.float32)}
counts = defaultdict(Counter)
for document in train:
    stream = [pieces.bos, *np.concatenate(document).tolist(), pieces.eos]
    for a, b, c in zip(stream, stream[1:], stream[2:], strict=False):
        for context in ((None, None), (a, None), (None, c), (a, c)):
            counts[context][b] += 1
most = {context: found.most_common(1)[0][0] for context, found in counts.items()}
look = lambda *contexts: next(most[context] for context in (*contexts, (None, None)) if context in most)
ways = {
    "unigram": lambda a, c: look(), "left neighbour": lambda a, c: look((a, None)),
    "right neighbour": lambda a, c: look((None, c)), "both neighbours": lambda a, c: look((a, c), (a, None)),
}  # fmt: skip
baselines = {name: np.equal([*map(way, left, right)], answer).mean() for name, way in ways.items()}
numbers |= {f"accuracy, {name}": value for name, value in baselines.items()}

# %% [markdown]
# ## The experiment: a small BERT on Python's manual
# Two layers of width 64, three seeds. One adjustment: BERT's initial standard deviation of 0.02 is made for width 768, where 0.02 * sqrt(768) =
# 0.55; at width 64 the same spread of sums takes 0.07, since 0.07 * sqrt(64) = 0.56.
# **Predict before you run.** After 1600 steps of 32 rows: what share of the masked words is filled in rightly, compared with the unigram? And at the
# targets that were left in place or replaced? Is next sentence above 1/2? (Both answers are equally likely.)

# %%
CONFIG = bert.Config(vocabulary=VOCABULARY, context=LENGTH, layers=2, width=64, heads=4, dropout=0.0)
wider = lambda spec: replace(spec, scale=0.07) if spec.init == "normal" else spec
SPECS = {path: wider(spec) for path, spec in bert.param_specs(CONFIG).items()}
MODEL = bind(bert, CONFIG)
optimizer = make_optimizer(OptimizerConfig(learning_rate=3e-3, warmup_steps=30), STEPS, params.decay_mask(SPECS))
gradient = make_gradient(masked_next_sentence, MODEL, full(), {})
train_step = jax.jit(make_train_step(gradient, optimizer, full(), {}), donate_argnums=0)
chunks = {name: leaf.reshape(8, -1, *leaf.shape[1:]) for name, leaf in probes.items()}  # all at once would take 1 GB
summed = lambda p: jax.lax.map(lambda part: masked_next_sentence(MODEL, p, part).metrics, chunks)
evaluate = jax.jit(lambda p: {name: total.sum() / weight.sum() for name, (total, weight) in summed(p).items()})


def pretrain(seed: int):
    """-> metrics on the probes at the start and after each eighth, and the parameters."""
    key, curve = jax.random.key(seed), []
    state = init_state(params.init_params(SPECS, key), {}, optimizer)
    for step in range(STEPS):
        if 8 * step % STEPS == 0:
            curve.append(evaluate(state.trainable))
        state, _ = train_step(state, {}, batch_at(train_pairs, seed, step, BATCH), key)
    return [*curve, evaluate(state.trainable)], state.trainable


runs, trained = zip(*map(pretrain, SEEDS), strict=True)
curves = {name: np.array([[point[name] for point in run] for run in runs]) for name in runs[0][0]}  # [seeds, points]
batch = batch_at(held_pairs, 1, 0, 500)
at_targets = lambda array: np.take_along_axis(array, batch["target_positions"], axis=1)
predict = jax.jit(lambda p: MODEL.logits(p, target_hidden(MODEL.apply(p, batch).hidden, batch)).argmax(-1))
correct = np.mean([predict(p) == batch["targets"] for p in trained], axis=0)  # share of the seeds [rows, targets]
target, seen = batch["weights"] > 0, at_targets(batch["tokens"])
kept = seen == batch["targets"]
kinds = {"masked": seen == MASK, "replaced": (seen != MASK) & ~kept, "left in place": kept, "all targets": target}
numbers |= {f"BERT's accuracy, {name}": correct[target & kind].mean() for name, kind in kinds.items()}
numbers["next sentence, BERT"] = curves["next_sentence_accuracy"][:, -1].mean()
numbers |= {f"{when} loss": curves["nll"][:, place].mean() for when, place in (("initial", 0), ("final", -1))}
accuracy = curves["accuracy"][:, -1]
numbers |= {"accuracy, BERT": accuracy.mean(), "BERT over the unigram": accuracy.mean() / baselines["unigram"]}
print("BERT on the probes, three seeds:", accuracy.round(3))
assert accuracy.min() > 2 * baselines["unigram"]
figure, (left_axes, right_axes) = plt.subplots(1, 2, figsize=(12, 4.6), dpi=120, layout="constrained")
steps = np.linspace(0, STEPS, curves["nll"].shape[1])
left_axes.plot(steps, 100 * curves["accuracy"].T, "o-", color=COLOURS[0], label=["BERT, one line per seed", None, None])
for name, value in baselines.items():
    left_axes.axhline(100 * value, color="grey", linestyle="--", linewidth=1)
    left_axes.text(STEPS, 100 * value + 0.4, f"counting: {name}", ha="right", color="dimgrey")
left_axes.set(xlabel="step", ylabel="gaps filled in rightly (%)", ylim=(0, None), title="Held-out rows, one gap each")
left_axes.legend(frameon=False, loc="center right")
bars = right_axes.bar([*kinds], [100 * numbers[f"BERT's accuracy, {name}"] for name in kinds], color=COLOURS[:4])
right_axes.bar_label(bars, fmt="%.0f")
right_axes.set(ylabel="predicted rightly (%)", title="The same BERT, by what stands at the target")
figure.savefig(figure_path("09", "masked.png"))
report("09", numbers)

# %% [markdown]
# **What to read from the figure.** Left: two neighbours together tell more than twice as much as either alone, which is why BERT looks both ways.
# BERT itself leaves the unigram behind (nearly three times its accuracy) but stays below one counted neighbour. GPT finds its left neighbour at its
# own place; BERT must first *learn to look* next door, for every place anew, and only one token in seven teaches it. Right: the accuracy over a
# batch's targets mixes three kinds. Where the true token was left in place, BERT mostly keeps it, and the accuracy over all targets is twice that at
# the masks. Next sentence: 69 %.
# ## What this toy does not show
# That counting beats BERT: tables end at the neighbours and at what they have seen; BERT-base is large, reads far and saw billions of words. Nor
# that next sentence helps or harms a task: no task was tried (RoBERTa, Liu et al. 2019, found that it can go). Nor that 80/10/10 is best: that takes
# fine-tuning too. One corpus, one size, three seeds.
# ## Exercises: `minillm lessons check 09`, with `--hints` when stuck
# 1. `corrupt(tokens, chosen, draw, other, mask)`: 80, 10, 10 with the chance already drawn (15 minutes, easy).
# 2. `masked_loss(scores, targets, weights)`: nats per masked token, exact for any batch (15 minutes, easy).
# ## Recap
# Hide 15 % of the words, look at both sides, fill in the gaps: mean of -log p(true word) over the gaps, by a softmax over the vocabulary. The
# corruption belongs to the data, so the weights do too. 80/10/10 keeps visible words honest, and flatters accuracies that count all targets.
# **Glossary:** masked language model 掩码语言模型 · self-supervision 自监督 · bidirectional 双向 · encoder 编码器 · cloze 完形填空 · next sentence
# prediction 下一句预测 · class token 分类标记 · separator 分隔符 · token type 片段类型 · post-norm 后置归一化 · fine-tuning 微调
# **Common errors:** loss over all places (copying is easy, the loss falls at once and means nothing); targets taken after the corruption; mask token
# in the random words; one denominator for words and sentences; padding that attends; a static mask that the model can learn by heart.
# **Next:** 10 StructBERT also shuffles words, and asks for three relations of two sentences.
