# %% [markdown]
# # 14 One history: RNN to T5 on one corpus at one budget
#
# **Sections:** 1.1, 1.2, 1.2.2, 1.8.1, 3.2.2, 3.8, 3.8.1
#
# - **You will be able to:** say what a comparison of models holds equal and what it cannot · count a training step's FLOPs on paper · tell losses
#   that can be compared from losses that cannot · fit a linear probe and judge it beside its two baselines · read a table with its deviations.
# - **Prerequisites:** 02 (bits per character), 05, 08, 09, 11, 12 (the models). **Time:** an hour of reading; the script, a minute on two cores.
# - **Expected:** 4e12 FLOPs buy a GPT 414 steps, half a reading of the text · bits per character: GPT 2.11, Transformer-XL 2.21, LSTM 2.25, RNN 2.28;
#   xz 2.01, 3-gram 1.82, 5-gram 1.67 · topics told by token counts 91 %, by the best member's features 78 % · GPT run again: within 0.02 bits.
#
# ## The question
# 1.1 and 1.2 promise a history, 1.8.1 and 3.8.1 praise where it led, and 3.2.2 draws its words with arrows from masked LM to LSTM to attention to
# RNN. Time ran the other way:
#
# - 1948, 1951 · Shannon, "A Mathematical Theory of Communication", "Prediction and Entropy of Printed English": text costs bits per letter.
# - 1990 · Elman, "Finding Structure in Time": the recurrent network · 1997 · Hochreiter and Schmidhuber, "Long Short-Term Memory".
# - 2014 · Bahdanau, Cho and Bengio, "Neural Machine Translation by Jointly Learning to Align and Translate": attention, beside a recurrent network ·
#   2017 · Vaswani et al., "Attention Is All You Need": the Transformer, trained on translation.
# - 2018 · June: Radford et al., "Improving Language Understanding by Generative Pre-Training" (GPT) · October: Devlin et al., "BERT: Pre-training of
#   Deep Bidirectional Transformers for Language Understanding" · 2019 · January: Dai et al., "Transformer-XL: Attentive Language Models Beyond a
#   Fixed-Length Context" · February: Radford et al., "Language Models are Unsupervised Multitask Learners" (GPT-2) · October: Raffel et al.,
#   "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer" (T5) · 2020 · Brown et al., "Language Models are Few-Shot
#   Learners" (GPT-3).
#
# From paper to paper model, text and compute changed. How much of the progress is the model? Here all get the same text and the same compute.
# ## What is equal, and what cannot be
# **Equal:** the text (BBC news), its split, the tokenizer (the table has the hashes of both), the parameters within 2 %, the compute of a run, batch,
# window, optimizer and schedule, three seeds. **Not equal:** *seconds* (no machine does all products equally fast); *steps*, which follow from the
# compute; *targets* (BERT predicts one token in seven); *context* (RNN, LSTM and Transformer-XL go on from the window before, a GPT begins anew);
# *learning rate* and the spread of the first weights, which each needs for itself: set by hand in a few tries. And the objective: in 1.2.2
# pretraining leads through the Transformer, but model and objective are two choices. Here an RNN is pretrained by GPT's objective.
#
# **The budget.** A kernel [a, b] costs 2ab FLOPs per token: a multiplication and an addition per weight. Backwards twice that, for the gradients of
# input and kernel. With N weights in kernels, D tokens and attention of each query with `keys` keys (scores, then weighted sum, 2 width each),
#
# $$C = 6 N D + 12 \cdot \text{layers} \cdot \text{width} \cdot \text{keys} \cdot D \qquad \text{(after Kaplan et al. 2020, section 2.1)}$$
#
# Kaplan et al. leave the vocabulary out of N; in a model as small as these its products are a fifth, so the head counts, once. Looking up an
# embedding multiplies nothing. By hand: vocabulary 10, width 4, hidden 16, one layer: N = 4 · 16 + 2 · 64 + 40 = 232. Two rows of 8 tokens: D = 16,
# 6ND = 22,272; attention 12 · 1 · 4 · 8 · 16 = 6,144. Together 28,416. What is never computed is free: the library cuts a longer window's queries
# into four blocks, and a block meets only the keys up to its own end, 5/8 of all on average (`causal_attention`).

# %%
import json
import shutil
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from minillm import config as configs
from minillm import params
from minillm.course.record import figure_path, report
from minillm.evaluation.probe import fit_ridge, ridge_probe
from minillm.experiment.ask.reopen import open_run
from minillm.experiment.data import split_documents
from minillm.experiment.many import lab as labs
from minillm.experiment.paper.describe import product_flops
from minillm.models import gpt
from minillm.models.contract import bind
from minillm.objectives.causal import causal
from minillm.report.plot import COLOURS


def budget(config: gpt.Config, tokens: int, keys: float) -> float:
    """C of a training step."""
    c, hidden = config, config.hidden or 4 * config.width
    n = c.layers * (4 * c.width**2 + (3 if c.gated else 2) * c.width * hidden) + c.vocabulary * c.width
    return 6 * n * tokens + 12 * c.layers * c.width * keys * tokens


def counted(config: gpt.Config, rows: int, length: int) -> float:
    """The same, counted by the library in the gradient's program."""
    tokens, start = jnp.zeros((rows, length), int), params.init_params(gpt.param_specs(config), jax.random.key(0))
    batch = {"tokens": tokens, "targets": tokens, "weights": jnp.ones((rows, length))}
    gradient = jax.grad(lambda p: causal(bind(gpt, config), p, batch).sums["loss"])
    return product_flops(jax.make_jaxpr(gradient)(start).jaxpr)


lab = labs.load(Path("configs/history.toml"), ("seeds=[0]",))
tiny = gpt.Config(vocabulary=10, context=8, layers=1, width=4, heads=2)
settings = {key: value for key, value in lab.members["gpt"]["model"].items() if key != "kind"}
small = gpt.Config(vocabulary=lab.shared["tokenizer"]["vocabulary"], **settings)
assert counted(tiny, 2, 8) == budget(tiny, 16, keys=8) == 28_416
assert counted(small, 16, 128) == budget(small, 16 * 128, keys=128 * 5 / 8)
steps = round(lab.compute / budget(small, 16 * 128, keys=80))

# %% [markdown]
# ## Which losses can be compared?
# Let a text be one of aa, ab, ba, bb with probability 0.4, 0.1, 0.1, 0.4, and take three models that know this *perfectly*.
#
# - **Left to right:** the first token costs log2 2 = 1 bit; the second, given the first, 0.8 · log2(1/0.8) + 0.2 · log2(1/0.2) = 0.72. A text costs
#   1.72 bits, its entropy; no code can do better. 0.86 bits per token.
# - **One token hidden, the other seen** (BERT): either costs 0.72. Is BERT better? It answers easier questions. Add up what it says of both tokens as
#   if that were a text's probability, and the four texts together get 0.8 · 0.8 · 2 + 0.2 · 0.2 · 2 = 1.36: more than 1, so it is none.
# - **Both hidden at once** (BERT guesses each gap by itself): 1 bit each. T5 writes a removed span from left to right: 0.86, if the span is all.
#
# Three perfect models, three losses. So a left-to-right loss compares with one of its kind only; times tokens, over ln 2 and over raw *characters*
# it becomes the length of a code, whatever the tokenizer; n-grams and even a compressor (xz) have one too. 2.6 nats per token and 8 tokens for 20
# characters: 2.6 · 8 / 0.693 / 20 = 1.5 bits per character. BERT and T5 get columns of their own, with their own baselines.

# %%
truth = np.array([[0.4, 0.1], [0.1, 0.4]])  # [first token, second token]
first, second = truth.sum(1, keepdims=True), truth.sum(0, keepdims=True)
seen, alone = truth / first, first * second  # p(second | first), and either by itself
laws = {"left to right": first * seen, "one hidden": seen * truth / second, "both hidden": alone}
numbers = {"FLOPs of the step on paper": budget(tiny, 16, keys=8), "steps on paper": steps}
for name, law in laws.items():
    numbers |= {f"bits per token, {name}": -(truth * np.log2(law)).sum() / 2, f"sum over texts, {name}": law.sum()}

# %% [markdown]
# ## One question for all: the linear probe
# Do the features know what an article is about? Freeze the model, average the hidden states over an article's first 126 tokens, and let a *linear*
# classifier find the topic (Alain and Bengio 2016). With standardised features X and one-hot labels Y, ridge regression has a closed form:
#
# $$W = (X^T X + \lambda I)^{-1} \, X^T (Y - \bar Y), \qquad \text{scores} = X W + \bar Y$$
#
# By hand: two articles, one feature x = -1, 1, topics 0, 1, λ = 2. For topic 1, Y - 1/2 is -1/2, 1/2; X'X = 2, X'Y = 1; W = 1 / (2 + 2) = 1/4.
#
# A probe's accuracy alone says little. The *same model before its first step* also mixes tokens into vectors, and much can be read off random
# mixtures; *token counts* (the log of 1 + how often, of the same 126 tokens) have no model at all. Training has added something only beyond the
# first, and something that counting does not give for free only beyond both.


# %%
def naive_ridge(x, labels, penalty):
    """x [rows, features] -> (means, deviations, W [features, classes], mean of Y [classes])."""
    y = np.eye(labels.max() + 1)[labels]
    centre, scale = x.mean(0), np.maximum(x.std(0), 1e-8)
    z = (x - centre) / scale  # its columns sum to 0, so the intercept is the mean of Y, whatever W is
    return centre, scale, np.linalg.inv(z.T @ z + penalty * np.eye(x.shape[1])) @ z.T @ (y - y.mean(0)), y.mean(0)


def naive_probe(train, labels, test, test_labels):
    """The accuracy on test, with the penalty that is best on each fifth training row."""
    right = lambda fit, x, y: np.mean((((x - fit[0]) / fit[1]) @ fit[2] + fit[3]).argmax(1) == y)
    fifth, best = np.arange(len(train)) % 5 == 0, (-1.0, 0.0)
    for penalty in 10.0 ** np.arange(-1, 6):
        fit = naive_ridge(train[~fifth], labels[~fifth], penalty)
        best = max(best, (right(fit, train[fifth], labels[fifth]), -penalty))  # of equals the smaller penalty
    return right(naive_ridge(train, labels, -best[1]), test, test_labels)


assert naive_ridge(np.array([[-1.0], [1.0]]), np.array([0, 1]), 2.0)[2].tolist() == [[-0.25, 0.25]]
random = np.random.default_rng(14)
x, labels = random.normal(size=(60, 7)), random.integers(0, 3, 60)
assert np.allclose(np.vstack(naive_ridge(x, labels, 10.0)[2:]), fit_ridge(x, labels, 10.0)[2])  # the mean stands last

# %% [markdown]
# ## Predict before you run
# Six members, about 0.73 million parameters each, 4e12 FLOPs a run. Write down your answers.
# 1. A GPT gets 414 steps. Who gets more: the RNN, Transformer-XL with 128 tokens of memory, BERT, T5?
# 2. RNN, LSTM, Transformer-XL and GPT by bits per character: in which order? Who beats xz, trigram, 5-gram, which have counted the whole text?
# 3. Whose features tell the topic best? Does training help every member? Does any of them beat token counts?
#
# The table was recorded with `minillm lab configs/history.toml`. The next cell trains **one** of its runs again, GPT with seed 0, and compares.

# %%
root = figure_path("14", "lab")
shutil.rmtree(root, ignore_errors=True)
(again,) = labs.run_lab(lab, root, ("gpt",), print)["rows"]
record = json.loads(Path("lessons/recorded/history.json").read_text(encoding="utf8"))
rows, baselines = {row["member"]: row for row in record["rows"]}, record["baselines"]
assert np.ptp(sizes := [row["parameters"] for row in rows.values()]) < 0.02 * min(sizes)
for member, row in rows.items():
    assert configs.load(root / f"configs/{member}-0.toml").train.steps == row["steps"]  # the record is of this budget
    numbers[f"steps, {member}"] = row["steps"]
    for name in ("bits_per_character", "accuracy", "recovered", "removed_nll", "probe_trained", "probe_untrained"):
        if name in row and (name != "accuracy" or row["objective"] == "masked"):
            numbers[f"{name}, {member}"] = row[name]["mean"]
            print(f"{member:15} {name:20} {row[name]['mean']:.3f} ± {row[name]['deviation']:.3f}")
numbers |= {f"bits_per_character, {name}": found["bits_per_character"] for name, found in baselines["causal"].items()}
for objective, name in (("masked", "accuracy"), ("span", "recovered"), ("span", "removed_nll")):
    numbers[f"{name}, unigram"] = baselines[objective]["unigram"][name]
numbers |= {f"probe, {name}": rows["gpt"][f"probe_{name}"]["mean"] for name in ("counts", "majority")}


def order(key: str, sign: int) -> str:
    """The members, best first; > where every seed of one is better than every seed of the next, ~ where not."""
    values = [(sign * np.array(row[key]["values"]), name) for name, row in rows.items() if key in row]  # small is good
    values.sort(key=lambda pair: pair[0].mean())
    links = [" > " if a.max() < b.min() else " ~ " for (a, _), (b, _) in pairwise(values)]
    return "".join(name + link for (_, name), link in zip(values, [*links, ""], strict=True))


print(order("bits_per_character", 1), order("probe_trained", -1), order("probe_untrained", -1), sep="\n")
for name in ("bits_per_character", "probe_trained"):
    numbers[f"rerun minus record, {name}"] = again[name]["values"][0] - rows["gpt"][name]["values"][0]
lines = map(json.loads, (root / "runs/gpt-0/metrics.jsonl").read_text(encoding="utf8").splitlines())
curve = {line["step"]: line["validation_bits_per_character"] for line in lines if "validation_loss" in line}
halfway = min(curve, key=lambda step: abs(step - steps / 2))
numbers["gained in the second half of GPT's run"] = curve[halfway] - curve[steps]

run = open_run(root / "runs/gpt-0")
parts = split_documents(run.experiment)[0][:2]  # training, validation
ids = [run.tokenizer.encode_many([document.text for document in part]) for part in parts]
topics = [np.array([document.name.split("/")[0] for document in part]) for part in parts]
labels = [np.searchsorted(np.unique(topics[0]), part) for part in topics]
counts = [np.array([np.log1p(np.bincount(row[:126], minlength=small.vocabulary)) for row in part]) for part in ids]
arguments = (counts[0], labels[0], counts[1], labels[1])
numbers["probe, counts, naive"] = share = naive_probe(*arguments)
numbers["probe, counts, standard error"] = np.sqrt(share * (1 - share) / len(labels[1]))
assert share == ridge_probe(*arguments)["accuracy"]
nats = json.loads((root / "runs/gpt-0/summary.json").read_text(encoding="utf8"))["validation"]["loss"]
tokens, characters = sum(len(row) + 1 for row in ids[1]), sum(len(document.text) for document in parts[1])  # 1: the end
assert np.isclose(nats * tokens / np.log(2) / characters, again["bits_per_character"]["mean"])
numbers["share of the text that GPT reads"] = steps * 16 * 128 / sum(len(row) + 1 for row in ids[0])

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), dpi=120, layout="constrained", width_ratios=(4, 6))
dots = ((left, "bits_per_character", "o", 0), (right, "probe_trained", "o", 0), (right, "probe_untrained", "x", 1))
for axes, key, mark, colour in dots:
    found = [(name, value) for name, row in rows.items() if key in row for value in row[key]["values"]]
    axes.plot(*zip(*found, strict=True), mark, color=COLOURS[colour], alpha=0.7, label=key.replace("_", " "))
left.plot(["gpt"], again["bits_per_character"]["values"], "*", color=COLOURS[1], markersize=11, label="GPT, run again")
lines = [(left, name, found["bits_per_character"]) for name, found in baselines["causal"].items()]
for axes, name, height in (*lines, *((right, name, numbers[f"probe, {name}"]) for name in ("counts", "majority"))):
    axes.axhline(height, color="grey", linestyle="--", linewidth=1, zorder=0)
    axes.text(axes.get_xlim()[1], height, f" {name}", va="center", color="dimgrey")
left.set(ylabel="bits per character: less is better"), right.set(ylabel="topic found: more is better", ylim=(0, 1))
left.legend(frameon=False), right.legend(frameon=False, loc="lower right")
figure.savefig(figure_path("14", "history.png"))
report("14", numbers)

# %% [markdown]
# **What to read from the table and the figure.** Left: GPT, Transformer-XL, LSTM, RNN; no seed crosses over. Attention leads recurrence, on fewer
# steps; it is not the order of dates, Transformer-XL is younger than GPT. And *none* reaches xz, let alone the n-grams, which have counted the
# whole text: 3.8.1 may be right about large budgets, at this one counting leads. BERT finds 11 % of the masked tokens (unigram: 2.1 %). T5 pays 5.6
# nats per removed token, the unigram 6.0, yet its first guess is right for 1.5 %, the unigram's for 2.2 %: it has hardly begun. Right: token counts
# tell 91 % of the topics, and no member comes near. Training gives GPT 30 points and Transformer-XL 22. To RNN, LSTM, BERT and T5 it gives nothing
# that three seeds could show. Without the crosses the RNN's 78 % would look like knowledge. Who predicts best is not read off best.
# ## What this toy does not show
# The order at 10^12 FLOPs is not the order at 10^23: these runs end before anyone has learned much. GPT gained 0.23 bits per character in the second
# half of its run, more than separates first from last: the table orders how fast models begin. One corpus, one size, one split (all seeds are judged
# on the same 216 articles, a standard error of 2 to 3 points for a probe), settings from a few tries: a sweep may exchange neighbours. And
# nothing about seconds: one machine, one run.
# ## Exercises: `minillm lessons check 14`, with `--hints` when stuck
# 1. `bits_per_character(losses, weights, texts)`: nats per token become bits per character (10 minutes, easy).
# 2. `steps_for_budget(budget, size, batch, length)`: how many steps a budget buys (20 minutes, medium).
# ## Recap
# Fix text, tokenizer, parameters, compute; say what is left unequal. A step costs 6ND and attention. Codes compare in bits per character; masked and
# span losses do not. Probe beside untrained features and counts. A claim is as wide as its deviations.
# **Glossary:** baseline 基线 · budget 预算 · FLOPs 浮点运算次数 · bits per character 每字符比特数 · entropy 熵 · code length 编码长度 ·
# linear probe 线性探针 · ridge regression 岭回归 · feature 特征 · fair comparison 公平比较
# **Common errors:** losses of different objectives in one column; forward FLOPs only; a probe without its untrained twin; one seed; an untuned rival.
# **Next:** 15 Scaling laws: the same budget question for one model at many sizes.
