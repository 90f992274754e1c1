# %% [markdown]
# # Lesson 05 · Recurrent language models: RNN and LSTM
# **Sections:** 3.2, 3.2.1, 3.4, 3.5, 3.5.2, 3.5.3, 3.5.4
# - **You will be able to:** write both cells from their equations · measure how far a cell sees before it has learned anything, and say what decides
#   it · train on an endless text in segments that hand their state on.
# - **Prerequisites:** lesson 02 (cross-entropy, n-grams), lesson 03 (gradients, Adam). **Time:** an hour; the script, 45 s on two cores.
# - **Expected:** on paper: the cell goes from 8 to 6, the RNN's gradient to 1/1024 · per token an untrained RNN's gradient shrinks by 0.58, an LSTM's
#   by 0.84; with a forget bias of 4 it grows by 1.06 · recall: all solve a lag of 3; at 48 the RNN and the LSTM guess (0.25), the LSTM with bias 4 is
#   right (1.0) · text, nats per byte: RNN 2.2, LSTM 2.1, 0.08 worse where it forgets every 16 bytes; counting pairs 2.6, fives 1.7.
# ## The question
# An n-gram forgets all beyond its n; a longer table is nearly empty. A recurrent network updates a *state* of fixed size with every token, so that
# in principle nothing limits its reach. Document 3 says that the LSTM "handles long-term dependencies" (3.2.1) and builds its language model from one
# (3.5.2). How long is long, what decides it, and does the program of 3.5.2 give it a chance?
# ## The maths, with shapes
# x_t [batch, inputs] is the embedding of token t; the state h_t [batch, width]; W [inputs, width], U [width, width], b [width] are the same at all
# times. Elman's network (1990), and what a change of the past does to the present, as a product of Jacobians (row vectors: h U):
#
#     h_t = tanh(x_t W + b + h_(t-1) U)              ∂h_t / ∂h_(t-1) = U diag(1 - h_t²)       ∂h_T / ∂h_0 = product over t = 1 ... T
#
# T factors of size 1/2 leave 2^-T of the gradient: it *vanishes*; factors of 2 make it *explode* (Bengio et al. 1994). On paper: width 1, U = 1/2,
# all inputs 0, so h = 0 and 1 - h² = 1. After 10 steps the gradient is (1/2)^10 = 1/1024.
#
# The LSTM (Hochreiter and Schmidhuber 1997, forget gate: Gers et al. 2000) adds a *cell* c that is not squeezed through a matrix at each step. Four
# gates of shape [batch, width] come from one product, i, f, g, o = x_t W + b + h_(t-1) U, with W [inputs, 4 width]:
#
#     c_t = sigmoid(f + forget bias) * c_(t-1)  +  sigmoid(i) * tanh(g)          h_t = sigmoid(o) * tanh(c_t)
#
# Along the cell, ∂c_t / ∂c_(t-1) is the open part of the forget gate (and what flows through h). On paper: all kernels 0, forget bias ln 3, so that
# sigmoid(ln 3) = 3/4: c_0 = 8 becomes c_1 = 3/4 · 8 + 1/2 · tanh(0) = 6, and h_1 = 1/2 · tanh(6).

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from minillm import params
from minillm.course.record import figure_path, report
from minillm.data import corpora
from minillm.evaluation import ngram
from minillm.models import lstm, rnn
from minillm.nn import recurrent
from minillm.objectives.causal import token_losses
from minillm.report.plot import COLOURS
from minillm.training.optimizer import OptimizerConfig, make_optimizer

kernel = lambda *rows: {"recurrent": {"kernel": jnp.array(rows)}}
start = {"hidden": jnp.zeros((1, 1)), "cell": jnp.full((1, 1), 8.0)}
paper = recurrent.lstm_cell(kernel([0.0] * 4), start, jnp.zeros((1, 4)), jnp.log(3.0))
half = lambda state, x: recurrent.rnn_cell(kernel([0.5]), state, x)
end = lambda h: recurrent.run_over_time(half, {"hidden": h}, jnp.zeros((1, 10, 1)))[1]["hidden"].sum()
numbers = {"cell after one step on paper": paper["cell"][0, 0]}
numbers["1024 times the gradient"] = 1024 * jax.grad(end)(start["hidden"])[0, 0]


# %% [markdown]
# ## The naive version
# A loop over layers and times. The library does the products with x for all times at once and keeps only h U in the loop (`nn/recurrent.py`);
# `models/rnn.py` and `models/lstm.py` differ in nothing but the cell.


# %%
def naive(p, tokens, cell):
    """tokens [length] -> hidden states [length, width], in NumPy; cell(x W + b + h U, c) -> (h, c)."""
    x = p["embedding"]["table"][tokens]
    for layer in range(len(p["blocks"]["input"]["bias"])):
        b, W = (p["blocks"]["input"][name][layer] for name in ("bias", "kernel"))
        U = p["blocks"]["recurrent"]["kernel"][layer]
        h, c, states = np.zeros(len(U)), np.zeros(len(U)), []
        for now in x:
            h, c = cell(now @ W + b + h @ U, c)
            states.append(h)
        x = np.stack(states)
    return x


def naive_lstm(gates, c, forget_bias=1.0):
    """One step: the four gates side by side [4 width], the cell [width] -> (h, c)."""
    sigmoid, (i, f, g, o) = lambda z: 1.0 / (1.0 + np.exp(-z)), np.split(gates, 4)
    c = sigmoid(f + forget_bias) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


for module, cell in ((rnn, lambda z, c: (np.tanh(z), c)), (lstm, naive_lstm)):
    config = module.Config(vocabulary=11, context=20, layers=2, width=8)
    weights = params.init_params(module.param_specs(config), jax.random.key(5))
    ids = jax.random.randint(jax.random.key(6), (1, 20), 0, 11)
    run = lambda ids, carry=None, go=module.apply, w=weights, c=config: go(w, {"tokens": ids}, c, carry=carry)
    whole = run(ids).hidden
    assert np.allclose(naive(jax.tree.map(np.asarray, weights), ids[0], cell), whole[0], atol=1e-5)
    first = run(ids[:, :13], module.init_carry(weights, {"tokens": ids}, config, 20))
    second = run(ids[:, 13:], first.carry)  # the carry is the state, and all that is needed of the past
    assert np.allclose(jnp.concatenate([first.hidden, second.hidden], axis=1), whole, atol=1e-5)

# %% [markdown]
# ## How far does an untrained cell see?
# A kernel drawn between ±1/sqrt(width), as is usual, has eigenvalues up to 1/sqrt(3) = 0.58 in size. And sigmoid(1) = 0.73, sigmoid(4) = 0.98.
# **Predict before you run.** By which factor per token does the gradient shrink in (a) the RNN, (b) an LSTM with forget bias 1, the default, (c) bias
# 4? Up to which lag will each *learn* to remember? (The cell also reaches itself through h: that adds up to sigmoid(o) sigmoid(i) 0.58 = 0.14.)

# %%
KINDS, WIDTH, LONGEST = 4, 32, 48
SETTINGS = {"vocabulary": 2 * KINDS, "context": LONGEST + 1, "layers": 1, "width": WIDTH, "tied": False}
LSTMS = {f"LSTM, forget bias {b:.0f}": (lstm, lstm.Config(**SETTINGS, forget_bias=b)) for b in (1.0, 4.0)}
CELLS = {"RNN": (rnn, rnn.Config(**SETTINGS)), **LSTMS}


def reach(module, config, distances):
    """Size of d state_t / d state_0 per distance t, averaged over 8 texts; 1 is what the identity would have."""
    weights = params.init_params(module.param_specs(config), jax.random.key(0))
    batch = {"tokens": jax.random.randint(jax.random.key(1), (8, LONGEST), 0, config.vocabulary)}
    empty = module.init_carry(weights, batch, config, LONGEST)
    name = "cell" if "cell" in empty else "hidden"

    def size(distance):
        now = batch | {"lengths": jnp.full(8, distance)}  # the state stands still from there on
        after = lambda shift: module.apply(weights, now, config, carry=empty | {name: empty[name] + shift}).carry[name]
        jacobian = jax.jacobian(after)(jnp.zeros(WIDTH))  # [8, 1, width, width]
        return jnp.sqrt(jnp.square(jacobian).sum((-1, -2)).mean() / WIDTH)

    return jax.jit(lambda distances: jax.lax.map(size, distances))(distances)


distances = jnp.arange(0, LONGEST + 1, 4)
curves = {name: reach(*cell, distances) for name, cell in CELLS.items()}
for name, curve in curves.items():
    numbers[f"{name}: factor per token"] = curve[-1] ** (1 / LONGEST)
    print(f"{name}: {curve[-1]:.0e} is left of the gradient after {LONGEST} tokens")

# %% [markdown]
# ## A small real experiment: delayed recall
# One of 4 letters, then `lag` random other letters; at the end: which was the first? Guessing has 1/4. Each cell is trained from scratch per lag.

# %%
LAGS, SEEDS, STEPS = (3, 6, 12, 48), 3, 300


def fit(module, config, rate, seed, inputs, loss, carry=None):
    """Trains over the leading axis of `inputs`; loss(weights, input, carry) -> (mean, carry). Returns the weights."""
    start = params.init_params(module.param_specs(config), jax.random.key(seed))
    settings = OptimizerConfig(learning_rate=rate, warmup_steps=20)
    optimizer = make_optimizer(settings, len(inputs), params.decay_mask(module.param_specs(config)))

    def step(state, now):
        weights, moments, carry = state  # the carry is data here: no gradient flows into the segment before
        (_, carry), gradient = jax.value_and_grad(loss, has_aux=True)(weights, now, carry)
        updates, moments = optimizer.update(gradient, moments, weights)
        return (optax.apply_updates(weights, updates), moments, carry), None

    return jax.lax.scan(step, (start, optimizer.init(start), carry), inputs)[0][0]


def recall(module, config, lag, seed):
    """Trains once, returns the accuracy on 256 fresh rows."""

    def question(weights, step, count):
        first, rest = jax.random.split(jax.random.fold_in(jax.random.key(seed), step))
        letter = jax.random.randint(first, (count, 1), 0, KINDS)
        tokens = jnp.concatenate([letter, jax.random.randint(rest, (count, LONGEST), KINDS, 2 * KINDS)], axis=1)
        batch = {"tokens": tokens, "lengths": jnp.full(count, lag + 1)}  # the last state is that after `lag` others
        return module.logits(weights, module.apply(weights, batch, config).hidden[:, -1]), letter[:, 0]

    loss = lambda weights, step, carry: (token_losses(*question(weights, step, 32))[0].mean(), carry)
    scores, letter = question(fit(module, config, 3e-3, seed, jnp.arange(STEPS), loss), STEPS, 256)
    return (scores.argmax(-1) == letter).mean()


accuracy, runs = {}, (jnp.repeat(jnp.array(LAGS), SEEDS), jnp.tile(jnp.arange(SEEDS), len(LAGS)))
for name, cell in CELLS.items():
    jax.clear_caches()  # compiled programs take memory, too
    found = jax.jit(jax.vmap(lambda lag, seed, cell=cell: recall(*cell, lag, seed)))(*runs)
    accuracy[name] = np.asarray(found).reshape(len(LAGS), SEEDS)
    print(f"{name:20}", *(f"lag {lag}: {row.mean():.2f}" for lag, row in zip(LAGS, accuracy[name], strict=True)))
    numbers |= {f"{name}: recall at lag {LAGS[place]}": accuracy[name][place].mean() for place in (0, -1)}

# %% [markdown]
# ## And on real text: the state must be handed on
# Training cannot run back through a whole book. *Truncated back-propagation through time* cuts the stream into segments, here of 16 bytes, hands
# the state on from each to the next, and stops gradients there. So the text is laid out in rows that go on from segment to segment. (In 3.5.2 the
# windows are shuffled, so the state starts at zero in each: the LSTM sees no farther than the window. It also trains one target per
# window; lesson 08 measures what this costs.) Corpus and held-out chapters are lesson 03's. The rates come from a small sweep on one of them,
# `formatstrings`; the other, `string-methods`, is reported. Loss, not accuracy: 3.5.4 prints both, lesson 02 says why it matters.

# %%
LENGTH, ROWS, STEPS = 16, 64, 400
manual = {d.name: np.frombuffer(d.text.encode(), np.uint8).astype(np.int32) for d in corpora.read("python-docs")}
_, test = manual.pop("formatstrings"), manual.pop("string-methods")
cut = lambda rows: jnp.stack([rows[:, at : at + LENGTH + 1] for at in range(0, rows.shape[1] - LENGTH, LENGTH)])
text = np.concatenate(list(manual.values()))[: ROWS * (STEPS * LENGTH + 1)]
segments = cut(text.reshape(ROWS, -1))  # [rows, bytes]: each row is running text


def language_model(module, config, rate, seed, kept):
    """Trains over the segments in order -> loss on the test chapter; kept = 0 empties the state before every segment."""

    def loss(weights, ids, carry):
        output = module.apply(weights, {"tokens": ids[:, :-1]}, config, carry=carry)
        mean = token_losses(module.logits(weights, output.hidden), ids[:, 1:])[0].mean()
        return mean, jax.tree.map(lambda leaf: kept * leaf, output.carry)

    empty = lambda rows: module.init_carry({}, {"tokens": rows}, config, LENGTH)
    weights = fit(module, config, rate, seed, segments, loss, empty(segments[0]))
    score = lambda carry, ids: loss(weights, ids, carry)[::-1]
    return jax.lax.scan(score, empty(test[None]), cut(test[None]))[1].mean()


MODELS = {"RNN": (rnn, rnn.Config(256, LENGTH, 1, 150), 7e-3), "LSTM": (lstm, lstm.Config(256, LENGTH, 1, 88), 3e-2)}
for name, model, kept in (("RNN", "RNN", 1.0), ("LSTM", "LSTM", 1.0), ("LSTM that forgets", "LSTM", 0.0)):
    jax.clear_caches()
    train = jax.jit(jax.vmap(lambda seed, model=MODELS[model], kept=kept: language_model(*model, seed, kept)))
    losses, size = train(jnp.arange(SEEDS)), params.count(MODELS[model][0].param_specs(MODELS[model][1]))
    print(f"{name:18} {size} parameters: {losses.mean():.2f} ± {losses.std(ddof=1):.2f} nats per byte, {SEEDS} seeds")
    numbers[f"text, {name}"] = losses.mean()
grams = {order: ngram.fit(list(manual.values()), order, 256) for order in (2, 5)}
numbers |= {f"text, {order}-gram": -ngram.log_probabilities(gram, test).mean() for order, gram in grams.items()}
numbers["text, what forgetting costs"] = numbers["text, LSTM that forgets"] - numbers["text, LSTM"]

# %% [markdown]
# **The figure.** Left: nearly straight lines on a logarithmic axis, before any training. Right: what could be *learned* from there.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4), layout="constrained")
for (name, curve), colour, mark in zip(curves.items(), COLOURS, "os^", strict=False):
    left.plot(distances, curve, mark + "-", color=colour, label=name)
    right.errorbar(LAGS, accuracy[name].mean(1), accuracy[name].std(1), fmt=mark + "-", color=colour, capsize=3)
right.axhline(1 / KINDS, color="grey", linestyle="--", label="guessing")
left.set(yscale="log", xlabel="tokens back", ylabel="size of the gradient", title="Before training")
right.set(xscale="log", xlabel="lag in tokens", ylabel="accuracy", title="Delayed recall, 3 seeds", ylim=(0, 1.05))
right.set_xticks(LAGS, LAGS)
_ = right.minorticks_off(), left.legend(), right.legend()
figure.savefig(figure_path("05", "reach.png"), dpi=120)
report("05", numbers)

# %% [markdown]
# ## What this toy does not show
# That an RNN cannot remember: one kind of kernel, one rate, 300 steps (Le et al. 2015 start from the identity, with ReLU). Nor that the LSTM reads
# text better: one size, one rate each, 400 steps; five counted bytes beat both. A kind note on 3.2.1: gates stretch the reach, they do not make it
# endless; at a lag of 48 the default bias was not enough here.
# ## Exercises: `minillm lessons check 05`, with `--hints` for help
# 1. `lstm_step(x, h, c, W, U, b, forget_bias)` · 15 minutes, easy · the cell from its equations.
# 2. `state_jacobian(U, states)` · 20 minutes, medium · how the end depends on the beginning, without automatic differentiation.
# 3. `continuing_segments(ids, rows, length)` · 20 minutes, medium · lay out a stream so that each row goes on where it stopped.
# ## Recap
# One cell, used at every time: over T steps its gradient is a product of T Jacobians. The LSTM's cell replaces the matrix by a gate, whose initial
# bias sets how far it can learn at first. Segments hand their state on; gradients stop between them.
# **Glossary:** recurrent network 循环神经网络 · hidden state 隐藏状态 · cell 记忆单元 · forget gate 遗忘门 · vanishing gradient 梯度消失 ·
# exploding gradient 梯度爆炸 · back-propagation through time 随时间反向传播 · truncated 截断 · segment 片段
# **Common errors:** gates in another order than the weights · no forget bias · no tanh on the cell · a state handed on to rows of another text.
# **Next:** 06 attention, which looks at every earlier token directly: a path of one step, whatever the distance.
