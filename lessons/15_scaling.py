# %% [markdown]
# # Lesson 15 · Scaling laws and what a model costs
#
# **Sections:** 1.3.3, 1.8, 1.8.2, 1.8.3, 2.1, 2.3.3, 2.8.2, 3.3.3, 3.8, 3.8.2, 3.8.3, 3.9.q3, 3.9.q5, 4.2.1, 4.3.3.2, 4.8.2, 4.8.3,
# 4.9.q2, 5.3.3, 5.8.1, 5.8.2
# - **You will be able to:** count a run's FLOPs and bytes on paper · find the best size for a budget of compute · fit a power law and test it on a
#   budget that it has not seen · turn FLOPs into hours, money and energy · tell a jump of a model from a jump of its metric.
# - **Prerequisites:** 02 (bits per character), 08 (GPT), 14 (the FLOPs of a step). **Time:** an hour of reading; the script, 25 s on two cores.
# - **Expected:** GPT-3 costs 3.15e23 FLOPs, 221,000 device hours · best N at 1e10, 3e10, 9e10 FLOPs: 5,000, 8,600, 15,300, so N ~ C^0.51 (± 0.03 over
#   seeds), 26,700 predicted at 2.7e11, 24,300 found · bits per character 3.38, 3.10, 2.87, predicted 2.63 ± 0.02, found 2.65; 5-grams of as much
#   text 2.50, 2.31, 2.26, 2.05, xz 2.22 · a metric jumps from 0.003 to 0.275 while a token goes from 3/4 to 15/16.
# ## The question
# Models will grow and grow, say 1.8.2, 2.8.2, 3.8.2, 4.8.2 and 5.8.2, and 3.3.3 counts it among the advantages that layers and parameters can be
# added. They cost a lot, say 1.3.3, 1.8.3, 2.1, 2.3.3, 3.8.3, 3.9.q3, 3.9.q5, 4.3.3.2, 4.8.3, 4.9.q2 and 5.8.1. How much better, for how much?
# Kaplan et al. 2020 ("Scaling Laws for Neural Language Models") and Hoffmann et al. 2022 ("Training Compute-Optimal Large Language Models") made it
# an experiment: how does held-out loss fall with parameters N, tokens D and compute C? And for a given C: a larger model, or more text?
# ## The maths: FLOPs and bytes
# A weight costs a multiplication and an addition per token, and backwards twice that (lesson 14). N weights in kernels, the head's too, and D tokens:
#
# $$C = 6 N D \quad (+\; 12 \cdot \text{layers} \cdot \text{width} \cdot \text{keys} \cdot D \text{ for attention's own products})$$
# By hand: one layer of width 8, hidden 32, 20 symbols, a row of 26: N = 4 · 64 + 2 · 256 + 160 = 928, 6ND = 144,768; attention 12 · 8 · 26 · 26 =
# 64,896; together 209,664, as `product_flops` counts it. *Serving* a token is a forward pass, 2N: 3D served tokens cost as much as training (5.8.1).
#
# **Memory.** A float32 number has 4 bytes. AdamW keeps each parameter's value, gradient and two moments: **16 bytes**, before any activation; a
# billion parameters take 16 GB to train and 4 GB to use. `minillm describe` asks the compiler.

# %%
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from minillm import config, params
from minillm.course.record import figure_path, report
from minillm.data import clean, corpora
from minillm.evaluation import compression, ngram
from minillm.experiment.paper.describe import describe, step_flops
from minillm.experiment.paper.hardware import ASSUMED_CPU, H100
from minillm.models import gpt
from minillm.models.contract import bind
from minillm.objectives.causal import causal
from minillm.report.plot import COLOURS
from minillm.training.optimizer import OptimizerConfig, make_optimizer

kernels = lambda c: c.layers * 12 * c.width**2 + c.vocabulary * c.width  # N; to look an embedding up multiplies nothing
per_token = lambda c, keys: 6 * kernels(c) + 12 * c.layers * c.width * keys  # C / D
copying = lambda *settings: config.load(Path("configs/copy.toml"), settings)
paper = 26 * per_token(gpt.Config(vocabulary=20, layers=1, width=8, heads=2), keys=26)
assert paper == step_flops(copying("model.layers=1", "model.width=8", "model.heads=2", "train.batch_size=1")) == 209_664
few, many = (describe(copying("model.width=512", f"train.batch_size={rows}")) for rows in (1, 65))
size, rest = few["total_parameters"], [found["memory_per_device"]["temporaries"] for found in (few, many)]
numbers = {"FLOPs of a step on paper": paper, "bytes a parameter, kept": few["memory_per_device"]["arguments"] / size}
numbers |= {"bytes a parameter, besides": rest[0] / size, "megabytes a row": (rest[1] - rest[0]) / 64e6}

# %% [markdown]
# Values and moments are 12 bytes. With a single row the compiler wants 8 more: the gradient, and one more buffer of its size: 16 is a lower bound. A
# further row of 26 tokens brings 2.2 MB of activations.
# ## What it costs
# Every assumption is an argument; `utilisation` is how much of the data sheet's `peak` a program reaches.


# %%
def cost(flops, *, peak, utilisation, price, watts):
    """FLOPs -> hours of one device, money, kilowatt hours."""
    hours = flops / (peak * utilisation) / 3600
    return hours, hours * price, hours * watts / 1000


ASSUMED = {"peak": H100.bfloat16, "utilisation": 0.4, "price": 2.0, "watts": 700.0}  # 700 W: its sheet; two are guesses
RUNS = {"GPT-3": (175e9, 300e9), "Gopher": (280e9, 300e9), "Chinchilla": (70e9, 1.4e12), "BERT": (85e6, 3.84e6)}
for name, (n, d) in RUNS.items():  # N and D, from the papers; BERT-base: three epochs of 10,000 reviews of 128 tokens
    hours, money, energy = cost(6 * n * d, **ASSUMED)
    print(f"{name:10} {6 * n * d:.2e} FLOPs, {hours:,.3f} device hours, {money:,.2f} dollars, {energy:,.3f} kWh")
    numbers |= {f"FLOPs, {name}": 6 * n * d, f"device hours, {name}": hours}
numbers["hours of a CPU, BERT"] = 6 * n * d / ASSUMED_CPU.float32 / 3600  # at 100 GFLOP/s
numbers["parameters for a device's month"] = (H100.bfloat16 * 0.4 * 720 * 3600 / 6 / 20) ** 0.5  # D = 20 N

# %% [markdown]
# Gopher and Chinchilla had about the same compute; Chinchilla, a quarter as large, was better (Hoffmann et al.). 4.3.3.2 and 4.9.q2 call fine-tuning
# dear: BERT's takes an H100 five seconds, a CPU five hours. 4.2.1's "large", some hundred million to some billion parameters, is what one
# device pretrains in a month. Not in the bill: failed runs, the search before, data, people, the building's cooling.
# ## The naive version: straight lines and valleys
# $L = a\,C^b$ is $\log L = \log a + b \log C$. By hand: 8, 4, 2 at C = 1, 10, 100: b = -log10 2 = -0.301. The best N at one C is the lowest point of
# a valley: of a parabola $\alpha x^2 + \beta x + \gamma$ over x = log N, at $-\beta / 2\alpha$. By hand, 3.3, 3.0, 3.1 at x = -1, 0, 1: $\alpha$ =
# 0.2, $\beta$ = -0.1, x = 1/4, and there 3.0 - 0.2/16 = 2.9875. Both are least squares: $X^T X w = X^T y$.


# %%
def least_squares(x, y, degree):
    """Coefficients, the highest power first."""
    powers = np.asarray(x)[:, None] ** np.arange(degree, -1, -1)
    return np.linalg.solve(powers.T @ powers, powers.T @ np.asarray(y))


def valley(sizes, losses):
    """(N, loss) at the lowest point of a parabola through the lowest loss and its two neighbours."""
    at = np.clip(np.argmin(losses), 1, len(sizes) - 2)
    near, centre = slice(at - 1, at + 2), np.log(sizes[at])
    a, b, c = least_squares(np.log(sizes[near]) - centre, losses[near], 2)
    return np.exp(centre - b / (2 * a)), c - b * b / (4 * a)


assert np.allclose(least_squares(np.log([1, 10, 100]), np.log([8, 4, 2]), 1), [-np.log10(2), np.log(8)])
assert np.allclose(valley(np.exp([-1.0, 0.0, 1.0]), np.array([3.3, 3.0, 3.1])), [np.exp(0.25), 2.9875])
assert np.allclose(least_squares(x := np.arange(9.0), np.sin(x), 2), np.polyfit(x, np.sin(x), 2))

# %% [markdown]
# ## A small real experiment
# GPTs of two layers read BBC news by the character. Four budgets of compute, each three times the last; in each, five sizes N, which get D = C / (C
# per token) characters, less than the text has (Hoffmann's second approach, "IsoFLOP"). Every run has a learning-rate schedule of its own length: a
# long run stopped early is not a short run.
# **Predict before you run.** 1. Nine times the compute: how many times as large is the best model? 2. A law is fitted to three budgets: how far off
# is it at the fourth? 3. 5-grams and xz get as much text as the best GPT reads: who is better?

# %%
LENGTH, ROWS, SEEDS = 64, 8, (0, 1, 2)
PLAN = dict.fromkeys((1e10, 3e10, 9e10), (8, 16, 24, 32, 48)) | {2.7e11: (16, 24, 32, 48, 64)}  # C: widths
splits = clean.split(clean.clean(corpora.read("bbc-news"))[0], validation=0.02, test=0.0, seed=0)
texts = ["\n\n".join(d.text for d in part).encode("ascii", "replace") for part in (splits.train, splits.validation)]
alphabet, ids = np.unique(np.frombuffer(b"".join(texts), np.uint8), return_inverse=True)
train, held_out = jnp.asarray(ids[: len(texts[0])]), ids[len(texts[0]) :][: 512 * LENGTH + 1]
cut = lambda rows: {"tokens": rows[:, :-1], "targets": rows[:, 1:], "weights": jnp.ones((len(rows), LENGTH))}
judged = cut(jnp.asarray(np.lib.stride_tricks.sliding_window_view(held_out, LENGTH + 1)[::LENGTH]))  # side by side
same = {"context": LENGTH, "layers": 2, "norm": "rms", "position": "rotary", "bias": False}
model_of = lambda w: gpt.Config(len(alphabet), **same, width=w, heads=w // 8, init_scale=0.02 * (768 / w) ** 0.5)


def trainer(width: int):
    """(text, seed, steps) -> bits per held-out character; compiled once for all budgets."""
    specs, model = gpt.param_specs(model_of(width)), bind(gpt, model_of(width))
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1.0, schedule="constant", weight_decay=0.0), 1, None)
    mean = lambda p, batch: causal(model, p, batch).sums["loss"] / batch["weights"].sum()

    @jax.jit
    def run(text, seed, steps):
        key, warm = jax.random.key(seed), 1 + steps // 10
        start = params.init_params(specs, key)

        def step(number, state):
            at = jax.random.randint(jax.random.fold_in(key, number), (ROWS, 1), 0, text.size - LENGTH)
            gradient = jax.grad(mean)(state[0], cut(text[at + jnp.arange(LENGTH + 1)]))
            updates, moments = optimizer.update(gradient, state[1], state[0])
            rate = 0.4 / width * jnp.minimum((number + 1) / warm, (steps - number) / (steps - warm))  # up, down to 0
            return optax.apply_updates(state[0], jax.tree.map(lambda leaf: rate * leaf, updates)), moments

        return mean(jax.lax.fori_loop(0, steps, step, (start, optimizer.init(start)))[0], judged) / np.log(2)

    return run


trainers = {width: trainer(width) for width in (8, 16, 24, 32, 48, 64)}
steps_of = lambda c, w: round(c / (ROWS * LENGTH * per_token(model_of(w), LENGTH * 5 / 8)))  # 5/8: lesson 14
judge = lambda c, width, seed: float(trainers[width](train, seed, steps_of(c, width)))

# %% [markdown]
# ## The law, and a budget that it has not seen
# `python lessons/15_scaling.py record` made the table of all 60 runs. Here seed 0 of three sizes at two budgets runs again: against the table, and
# against the clock, where a matrix product is the `peak`, the first budget gives a size's utilisation, and `cost` predicts the second. Then, for each
# seed: every budget's valley, a power law through the lowest points of the first three, and its value at the fourth.

# %%
RECORD = Path("lessons/recorded/scaling.json")
if "record" in sys.argv:
    found = {f"{c:g}": {w: [judge(c, w, seed) for seed in SEEDS] for w in widths} for c, widths in PLAN.items()}
    RECORD.write_text(json.dumps(found, indent=1) + "\n", encoding="utf8")
table = json.loads(RECORD.read_text(encoding="utf8"))
bits = {c: np.array([table[f"{c:g}"][str(width)] for width in widths]) for c, widths in PLAN.items()}  # [sizes, seeds]
clock, square, product, off, ratios = time.perf_counter, jnp.ones((1024, 1024)), jax.jit(jnp.matmul), [], []
peak = 2 * 1024**3 / np.diff([(product(square, square).block_until_ready(), clock())[1] for _ in range(9)]).min()
for row, w in list(enumerate(PLAN[1e10]))[1:4]:  # the middle sizes
    judge(1e8, w, 0)  # compiles
    start, small, between, large, end = clock(), judge(1e10, w, 0), clock(), judge(3e10, w, 0), clock()
    share, took = 1e10 / peak / (between - start), end - between
    predicted = 3600 * cost(3e10, peak=peak, utilisation=share, price=0.0, watts=0.0)[0]
    print(f"width {w}: {share:.0%} of {peak / 1e9:.0f} GFLOP/s; {took:.1f} s, predicted {predicted:.1f}")
    off, ratios = [*off, small - bits[1e10][row, 0], large - bits[3e10][row, 0]], [*ratios, took / predicted]
numbers |= {"rerun minus record": np.abs(off).max(), "log2 of seconds over predicted": np.log2(np.median(ratios))}
sizes = {c: np.array([kernels(model_of(width)) for width in widths]) for c, widths in PLAN.items()}
lowest = np.array([[valley(sizes[c], bits[c][:, seed]) for c in PLAN] for seed in SEEDS])  # [seeds, budgets, (N, loss)]
budgets, grams = np.array(list(PLAN)), []
for k, what in enumerate(("best N", "bits")):
    lines = np.array([least_squares(np.log(budgets[:3]), np.log(row[:3, k]), 1) for row in lowest])  # (b, log a)
    law = np.exp(lines[:, 1] + lines[:, 0] * np.log(budgets)[:, None])  # [budgets, seeds]
    numbers |= {f"{what} at {c:g}": value for c, value in zip(PLAN, lowest[:, :, k].mean(0), strict=True)}
    for name, value in (("exponent", lines[:, 0]), ("predicted", law[3])):
        numbers |= {f"{what}, {name}": value.mean(), f"{what}, {name}, deviation": value.std(ddof=1)}
numbers["largest size minus best, bits at 1e+10"] = (bits[1e10][-1] - bits[1e10].min(0)).mean()
for c, widths in PLAN.items():
    best = widths[bits[c].mean(1).argmin()]
    some = np.asarray(train[: steps_of(c, best) * ROWS * LENGTH])  # as much text as the best GPT reads
    nats, count = ngram.negative_log_likelihood(ngram.fit([some], 5, len(alphabet)), [held_out])
    grams.append(nats / count / np.log(2))
    numbers |= {f"characters per weight at {c:g}": len(some) / kernels(model_of(best)), f"5-gram at {c:g}": grams[-1]}
as_text = lambda ids: bytes(alphabet[ids]).decode()
numbers[f"xz at {c:g}"] = compression.xz_bits_per_character(as_text(some), as_text(held_out[1:]))

# %% [markdown]
# ## Abilities that "emerge"
# Let ten times the compute halve the errors per token, again and again: as smooth as the loss. Now mark answers of 20 tokens by *exact match*, p^20.
# By hand: p = 3/4 gives 0.003, p = 15/16 gives 0.275. **Predict** the curve over six decades. Schaeffer et al. 2023 ("Are Emergent Abilities of Large
# Language Models a Mirage?") show that many jumps reported of models are of this kind, the metric's, and vanish under a smooth one.

# %%
right = 1 - 0.5 * 0.5 ** np.arange(7)
numbers |= {f"exact match at p = {2**n - 1}/{2**n}": right[n - 1] ** 20 for n in (2, 4, 7)}
numbers["p = 3/4: a test of 100 has not one right"] = (1 - right[1] ** 20) ** 100
figure, (left, middle, last) = plt.subplots(1, 3, figsize=(14, 4.4), dpi=120, layout="constrained")
for c, colour in zip(PLAN, COLOURS, strict=False):
    left.plot(sizes[c], bits[c], "o", color=colour, markersize=3)
    left.plot(sizes[c], bits[c].mean(1), color=colour, label=f"{c:.1e} FLOPs")
left.plot(*lowest.mean(0).T, "k*", markersize=9, label="lowest points")
middle.plot(budgets, lowest[:, :, 1].T, "o", color=COLOURS[0], markersize=4, label=["lowest points", None, None])
middle.plot(budgets, law, "--", color="grey", linewidth=1, label=["law of the first three", None, None])
middle.plot(budgets, grams, "s-", color=COLOURS[1], label="5-gram of as much text")
last.plot(right, "o-", color=COLOURS[0], label="a token is right")
last.plot(right**20, "s-", color=COLOURS[1], label="20 tokens are right")
left.set(xscale="log", xlabel="N, weights in kernels", ylabel="bits per held-out character", title="Valleys")
middle.set(xscale="log", yscale="log", xlabel="C, FLOPs of training", ylabel="bits per character", title="The law")
_ = middle.set_yticks((2, 2.5, 3, 3.5), (2, 2.5, 3, 3.5)), middle.minorticks_off()
last.set(xlabel="decades of compute", ylabel="probability", title="A jump made of a smooth curve")
_ = [axes.legend(frameon=False, fontsize=8) for axes in (left, middle, last)]
figure.savefig(figure_path("15", "scaling.png"))
report("15", numbers)

# %% [markdown]
# **What to read from the figure.** Left: nine times the compute, three times the best size; at 1e10 the largest model is 0.43 bits worse than the
# best, so one may *not* always add parameters (3.3.3). Middle: at the budget not seen the bits are 0.02 above the law's, about the spread of the
# seeds; the best size is 9 % below. Counting the same text is better still. Right: the blue curve has no jump.
# ## What this toy does not show
# That the law goes on: 27 times the compute is little. Kaplan et al. had far more and found N ~ C^0.73, Hoffmann et al. C^0.5; Porian et al. 2024
# ("Resolving Discrepancies in Compute-Optimal Scaling of Language Models") trace it to the head's FLOPs, the warm-up and the optimizer's settings,
# for which we have one rule, set by hand. Three budgets show no floor of the loss, but text has one, its entropy, so a straight line promises too
# much in the end. One text, characters, three seeds; no ability was measured; a bill is as good as its guesses.
# ## Exercises: `minillm lessons check 15`, with `--hints` when stuck
# 1. `best_split(compute, tokens_per_parameter)` · 10 minutes, easy · the size and the text that a budget buys.
# 2. `fit_power_law(x, y)` · 20 minutes, medium · factor and exponent by least squares.
# 3. `training_cost(flops, devices, peak, utilisation, price, watts)` · 15 minutes, medium · hours, money and energy of many devices.
# ## Recap
# C = 6ND; 16 bytes a parameter; 2N to serve a token. For each C there is a best N. Fit in logarithms, show the spread, and test on a budget that was
# held out. Ask of a jump whether its metric made it.
# **Glossary:** scaling law 缩放定律 · power law 幂律 · compute budget 计算预算 · compute-optimal 计算最优 · extrapolation 外推 · utilisation 利用率 ·
# energy 能耗 · emergence 涌现 · exact match 精确匹配 · least squares 最小二乘
# **Common errors:** the forward pass alone, 2ND · the head left out of a small N · a law judged on the points it was fitted to · no utilisation.
# **Next:** 16 shares one program among many devices; 43 asks whether the bill pays.
