# %% [markdown]
# # 02 Language models by counting
#
# **Sections:** 3.1, 3.4.1, 3.4.2, 3.5.4, 3.9.q1
#
# - **You will be able to:** factor a text's probability by the chain rule; turn log-probabilities into cross-entropy,
#   perplexity and bits per character; build, smooth and sample n-grams; read a gap between training and held-out scores.
# - **Prerequisites:** 01 (tokens). **Time:** 10 s on two cores; 45 minutes of reading.
# - **Expected:** the toy has perplexity 1.316, 0.144 bits per character; what 3.4.1 prints on the left is 0.5, not 0.333.
#   Glasses : Francisco is 0.6 by frequency, 6.8 by Kneser and Ney. Held-out bits per character on python-docs, mean of three
#   splits: characters 4.7 at order 1 and 2.1 at order 5; 1024 BPE pieces 3.4 and 2.0 (training: 0.6); xz 2.0. Without
#   cleaning order 5 seems to reach 1.4, while about a third of the held-out text also stands in the training part.

# %% [markdown]
# ## The question
# Section 3.1 says that modelling language is hard. How hard, in which unit, compared with what? And what did the
# "traditional methods" of question 3.9.q1 know already? Before any neural network: count. Later models must beat this.
#
# ## The chain rule, and a kind correction
# For tokens $x_1 \dots x_n$ after a start symbol $x_0$, with no assumption at all,
#
# $$p(x_1, \dots, x_n \mid x_0) = \prod_{i=1}^n p(x_i \mid x_0, \dots, x_{i-1})$$
#
# Section 3.4.1 prints the right side so, but its left side also lists $x_1 \dots x_{n-1}$ behind the bar. Given those, all
# but $x_n$ is certain already, and what is printed is the last factor alone. Three documents settle it:

# %%
from collections import Counter

import numpy as np
from matplotlib import pyplot as plt

from minillm.course.record import figure_path, report
from minillm.data import clean, corpora, tokenizer
from minillm.evaluation import ngram
from minillm.evaluation.compression import xz_bits_per_character
from minillm.report.plot import COLOURS

CORPUS = ["the cat sat", "the cat ran", "the dog sat"]
given = CORPUS.count("the cat sat") / sum(line.startswith("the cat") for line in CORPUS)  # behind the bar: the, cat
print(f"p(the cat sat) = 1/3; with the and cat behind the bar: {given:.3f}, which is p(sat | the cat)")

# %% [markdown]
# ## A bigram by hand
# The Markov assumption: only the last token counts, $p(x_i \mid x_0 \dots x_{i-1}) \approx p(x_i \mid x_{i-1})$, estimated
# as $c(x_{i-1} x_i) / c(x_{i-1})$. On paper: "the" always begins (1), "cat" follows "the" 2 times of 3, "sat" follows "cat"
# 1 time of 2, then the text ends (1). So "the cat sat" has probability $1 \cdot 2/3 \cdot 1/2 \cdot 1 = 1/3$.
#
# - **cross-entropy** $= -\frac1N \sum_{i=1}^N \log p(x_i \mid \dots) = \ln 3 / 4 = 0.275$ nats per token, $N$ = 4
# - **perplexity** $= \exp(\text{cross-entropy}) = 3^{1/4} = 1.316$: as unsure as a fair die with 1.316 faces
# - **bits per character** $= -\sum \log_2 p\, / $ characters $= \log_2 3 / 11 = 0.144$
#
# Section 3.4.2 maximises "the likelihood" and prints the first of these, to minimise it. Both are right once named: it is
# the *negative mean log*-likelihood. Its $N$ counts predicted tokens, not training examples.

# %%
ids = {word: place for place, word in enumerate(["<s>", "</s>", "the", "cat", "sat", "ran", "dog"])}
documents = [np.array([0, *(ids[word] for word in line.split()), 1]) for line in CORPUS]  # start ... end
counts = np.zeros((7, 7))  # [previous, next]
for document in documents:
    np.add.at(counts, (document[:-1], document[1:]), 1)
bigram = counts / np.maximum(counts.sum(1, keepdims=True), 1)
nats = -np.log(bigram[documents[0][:-1], documents[0][1:]])  # [4], one per scored token
toy_perplexity, toy_bits = np.exp(nats.mean()), nats.sum() / np.log(2) / len(CORPUS[0])
print(f"probability {np.exp(-nats.sum()):.3f}, perplexity {toy_perplexity:.3f}, bits per character {toy_bits:.3f}")
print("p(ran | dog) =", bigram[ids["dog"], ids["ran"]])  # never seen: probability 0, perplexity infinite

# %% [markdown]
# **Loss or accuracy?** Section 3.5.4 prints both. Say two models put the right token first every time, one with probability
# 0.9, one with 0.4: both have 100 % accuracy, but they pay 0.15 and 1.32 bits per token. And a loss per token depends on
# the tokenizer (lesson 01). So this course reports bits per character of the raw text.
#
# ## Smoothing
# "The dog ran" is fine English, and no corpus holds all of it. *Add-k* pretends that every pair was seen $k$ more times:
# $(c(h w) + k) / (c(h) + k V)$; for k = 1, $p(\text{ran} \mid \text{dog}) = (0 + 1) / (1 + 7) = 1/8$. Every word gets the same
# consolation. **Kneser-Ney** takes a discount $D$ off each count and hands it to a shorter context:
#
# $$P_k(w \mid h) = \frac{\max(c(hw) - D_k, 0)}{c(h)} + \frac{D_k\, T(h)}{c(h)} P_{k-1}(w \mid h'), \qquad P_0 = 1/V, \qquad
#   D_k = \frac{n_1}{n_1 + 2 n_2}$$
#
# $T(h)$: distinct tokens after $h$; $h'$: $h$ without its oldest token; $n_j$: how many n-grams were seen $j$ times. The idea:
# below the highest order, $c(g)$ is not how often $g$ occurred but *how many different tokens came before it*.
# By hand, `<s> a b a b c`: the bigrams are `<s>a` 1, `ab` 2, `ba` 1, `bc` 1, so $D_2 = 3/(3+2) = 0.6$. a follows two kinds of
# token, b and c one: $D_1 = 2/(2+2) = 0.5$, $P_1(a) = 1.5/4 + (0.5 \cdot 3/4)/4 = 0.469$, $P_2(a \mid b) = 0.4/2 + 0.6 \cdot 0.469 = 0.481$.


# %%
def naive_kneser_ney(documents, order: int, vocabulary: int):
    """The formula with dictionaries; returns probability(token, context) for contexts of order - 1 tokens."""
    grams = {length: Counter() for length in range(1, order + 1)}
    for document in documents:
        padded = [int(document[0])] * (order - 1) + [int(token) for token in document[1:]]
        grams[order].update(tuple(padded[end - order : end]) for end in range(order, len(padded) + 1))
    for length in range(order - 1, 0, -1):  # distinct left neighbours: each longer gram counts once
        grams[length].update(gram[1:] for gram in grams[length + 1])

    def probability(token: int, context: tuple[int, ...]) -> float:
        lower = probability(token, context[1:]) if context else 1 / vocabulary
        table = grams[len(context) + 1]
        after = {gram[-1]: count for gram, count in table.items() if gram[:-1] == context}
        if not after:
            return lower
        seen, total = list(table.values()), sum(after.values())
        discount = seen.count(1) / (seen.count(1) + 2 * seen.count(2)) if 1 in seen else 0.5
        return max(after.get(token, 0) - discount, 0) / total + discount * len(after) / total * lower

    return probability


assert np.isclose(naive_kneser_ney([[0, 1, 2, 1, 2, 3]], 2, 4)(1, (2,)), 0.4 / 2 + 0.6 * 0.46875)  # as by hand
random = np.random.default_rng(0)
for order in (1, 2, 3):  # the library's tables against the formula, on random documents
    train, held_out = ([np.array([0, *random.integers(2, 7, 12), 1]) for _ in range(4)] for _ in range(2))
    model, probability = ngram.fit(train, order, 7), naive_kneser_ney(train, order, 7)
    for document in held_out:
        padded = [0] * (order - 1) + [int(token) for token in document[1:]]
        naive = [probability(padded[i], tuple(padded[i + 1 - order : i])) for i in range(order - 1, len(padded))]
        np.testing.assert_allclose(ngram.log_probabilities(model, document), np.log(naive), rtol=1e-12)

# %% [markdown]
# ## Predict before you run
# "San Francisco" stands ten times in a text; "glasses" six times, after six different words. After a word that was never
# seen (only a shorter context can help), which is likelier: Francisco, by 10 to 6? Or glasses?

# %%
san, francisco, glasses, new, odds = 2, 3, 4, 11, []
town = [np.array([0, san, francisco, 1])] * 10 + [np.array([0, word, glasses, 1]) for word in range(5, 11)]
for order in (1, 2):  # order 1 alone counts occurrences, order 1 under a bigram counts left neighbours
    model = ngram.fit(town, order, vocabulary=12)
    scores = [ngram.log_probabilities(model, [0, new, word])[-1] for word in (glasses, francisco)]
    odds.append(np.exp(scores[0] - scores[1]))
print(f"glasses : Francisco = {odds[0]:.2f} by frequency, {odds[1]:.2f} by Kneser and Ney's counts")

# %% [markdown]
# ## The experiment
# python-docs, cleaned as in lesson 01, three splits by topic; characters and 1024 BPE pieces; orders 1 to 5; scores of the
# training part and of the held-out tenth. Baseline from outside: the compressor xz is a language model too. A code of $L$
# bits is a probability $2^{-L}$; its score is what the held-out text adds to the size of the compressed training text.
# Predict: which order is best held out? Does the *training* score say so?

# %%
ORDERS, SEEDS, KINDS = (1, 2, 3, 4, 5), (0, 1, 2), {"char": "characters", "bpe": "1024 BPE pieces"}
raw = corpora.read("python-docs")
cleaned, _ = clean.clean(raw, normalization="NFC", drop_repeated_lines=True)


def prepare(documents, kind: str, seed: int):
    """Training and held-out part: their texts, and their ids by a tokenizer of the training part."""
    parts = clean.split(documents, validation=0.1, test=0.0, seed=seed)[:2]
    texts, model_file = [[d.text for d in part] for part in parts], figure_path("02", f"{kind}.model")
    tokenizer.train(texts[0], 1024, kind, model_file=model_file)
    pieces = tokenizer.load(model_file)
    return texts, [[[pieces.bos, *row, pieces.eos] for row in pieces.encode_many(part)] for part in texts], pieces


def score(texts, ids, pieces, order: int) -> list[float]:
    """Bits per character of the training and of the held-out part."""
    model = ngram.fit(ids[0], order, pieces.vocabulary)
    parts = zip(ids, texts, strict=True)
    return [ngram.negative_log_likelihood(model, i)[0] / np.log(2) / sum(map(len, t)) for i, t in parts]


data = {(kind, seed): prepare(cleaned, kind, seed) for kind in KINDS for seed in SEEDS}
bits = np.array([[[score(*data[kind, seed], order) for seed in SEEDS] for order in ORDERS] for kind in KINDS])
mean = bits.mean(2)  # bits: [kind, order, seed, (training, held out)]; mean: [kind, order, 2]
xz = [xz_bits_per_character(*map("".join, data["char", seed][0])) for seed in SEEDS]
leaky, known = [], []
for seed in SEEDS:  # the same without cleaning, and the share of held-out text in lines of the training part
    texts, *rest = prepare(raw, "bpe", seed)
    train, held_out = ("\n".join(part).split("\n") for part in texts)
    leaky.append(score(texts, *rest, 5)[1])
    known.append(sum(map(len, filter(set(train).__contains__, held_out))) / sum(map(len, held_out)))
for kind, table in zip(KINDS, mean, strict=True):
    print(f"{kind:5}", "  ".join(f"order {o}: {a:.2f} / {b:.2f}" for o, (a, b) in zip(ORDERS, table, strict=True)))
print(f"xz {np.mean(xz):.2f}; not cleaned, BPE, order 5: {np.mean(leaky):.2f}, {np.mean(known):.0%} of the text known")
figure, axes = plt.subplots(figsize=(8, 4.5), dpi=120, layout="constrained")
for name, points, colour in zip(KINDS.values(), bits, COLOURS, strict=False):
    axes.plot(ORDERS, points.mean(1)[:, 1], "-", color=colour, label=f"{name}, held out")
    axes.plot(ORDERS, points.mean(1)[:, 0], "--", color=colour, label=f"{name}, training")
    axes.plot(ORDERS, points[:, :, 1], "o", color=colour, alpha=0.4)
axes.axhline(np.mean(xz), color="grey", linestyle=":", label="xz, held out")
axes.set(xlabel="order of the n-gram", ylabel="bits per character", xticks=ORDERS, ylim=(0, 5))
axes.legend(frameon=False)
figure.savefig(figure_path("02", "orders.png"))

# %% [markdown]
# **What to read from it** (dots: splits; lines: means). Solid: more context helps, then flattens, because longer contexts
# were mostly never seen. Dashed: the training score falls on regardless; at order 5 it says what the model has *stored*. The
# gap is overfitting, here without any gradient. Pieces start ahead since one spans several characters. The last printed
# line: without cleaning the score looks far better, for a good part of the held-out text was seen in training.
#
# ## What it writes
# Draw a token from $P(\cdot \mid h)$, append it, go on (Shannon did so in 1948, with books and a finger). Higher orders write
# more fluently. Ask of every fluent sample: how much of it stands in the training text?


# %%
def write(pieces, train, order: int, length: int) -> str:
    """About `length` characters, from an order of at least 2; documents follow each other."""
    model, every = ngram.fit(train, order, pieces.vocabulary), np.arange(pieces.vocabulary)
    random, tokens = np.random.default_rng(0), [pieces.bos] * order
    while len(pieces.decode(tokens)) < length:
        row = np.column_stack([np.tile(tokens[1 - order :], (len(every), 1)), every]).ravel()  # context, candidate, ...
        probabilities = np.exp(ngram.log_probabilities(model, row)[order - 2 :: order])  # P(w | context), [vocabulary]
        token = int(random.choice(every, p=probabilities))  # which also checks that they sum to 1
        tokens += [token] + (token == pieces.eos) * [pieces.bos] * (order - 1)
    return " ".join(pieces.decode(tokens).split())


for kind, order in (("char", 2), ("char", 5), ("bpe", 2), ("bpe", 5)):
    _, (train, _), pieces = data[kind, 0]
    print(f"{kind}, order {order}: {write(pieces, train, order, 250)}\n")

# %% [markdown]
# ## What this toy does not show
# That neural models do better: later lessons put theirs beside this line. The answer to 3.9.q1, so far: counting treats
# every context as an unrelated key, so "the cat sat" teaches nothing about "the dog sat" beyond a shared shorter context;
# a network shares parameters between similar contexts, and pays in computation. 350 kB of technical text say nothing about
# the order for a large corpus; a difference below the scatter of three splits (the fifth order against xz) is none.

# %%
report("02", {
    "left side as printed": given,
    "perplexity of the toy": toy_perplexity, "bits per character of the toy": toy_bits,
    "glasses : Francisco by frequency": odds[0], "glasses : Francisco by Kneser-Ney": odds[1],
    "held out, characters, order 1": mean[0, 0, 1], "held out, characters, order 5": mean[0, 4, 1],
    "held out, bpe, order 1": mean[1, 0, 1], "held out, bpe, order 5": mean[1, 4, 1],
    "training, bpe, order 5": mean[1, 4, 0], "held out, xz": np.mean(xz),
    "held out, bpe, order 5, not cleaned": np.mean(leaky), "known text, not cleaned": np.mean(known),
})  # fmt: skip

# %% [markdown]
# **Exercises** (`lessons/exercises/02_counting.py` or a copy; then `minillm lessons check 02 [FILE]`, `--hints` when stuck):
# 1. `perplexity(log_probabilities)`: of several documents of unequal length (10 minutes, easy).
# 2. `add_k_bigram(counts, k)`: smoothed probabilities from a table of counts (15 minutes, medium).
#
# - **Recap:** the chain rule is exact, the Markov assumption is not. Loss, perplexity and bits per character are one number in
#   three units; only the last compares across tokenizers. Unseen is not impossible: smooth. Kneser-Ney counts contexts, not
#   occurrences. Training scores measure storage; duplicates across the split turn held-out scores into training scores.
# - **Glossary:** language model 语言模型; chain rule 链式法则; cross-entropy 交叉熵; perplexity 困惑度; n-gram n 元语法;
#   smoothing 平滑; back-off 回退; held-out text 留出文本; overfitting 过拟合; sampling 采样.
# - **Common errors:** averaging perplexities; $2^{\text{nats}}$; bytes for characters; no end symbol; zero probabilities;
#   splitting lines in place of documents. **Next:** 03 Gradients, the tool that lets contexts share what they learn.
