# %% [markdown]
# # Lesson 12 · Transformer-XL: memory across segments
#
# **Sections:** 3.7.3
# - **You will be able to:** carry a memory from segment to segment and say how far back it reaches, layer by layer · compute the four terms of a
#   relative score, and the shift that makes them cheap · predict, before running, what a model with a given memory can and cannot know.
# - **Prerequisites:** lesson 05 (segments, a state that is handed on), lesson 06 (attention, positions), lesson 08 (GPT). **Time:** 45 minutes; the
#   script, 35 s on two cores.
# - **Expected:** reach of one, two and three layers: 15, 23 and 31 tokens back; a GPT's: 7, however deep · what lies 12 tokens back, read in segments
#   of 8: a GPT of the same size is right in 0.06 of all places (chance), Transformer-XL in 0.06, 0.18, 0.65, 1.00 with a memory of 2, 4, 8, 12.
# ## The question
# A GPT trained on windows of n tokens sees at most n - 1 tokens back, and at the beginning of a window next to nothing. An LSTM (lesson 05) hands its
# state on, but squeezes all of the past into one vector. Transformer-XL (Dai et al. 2019, "Attentive Language Models Beyond a Fixed-Length Context",
# named in 3.7.3) hands on something richer: each layer's inputs for the last tokens, to be looked at like any others. How far does that reach, what
# must change in the positions, and does a model learn to use it?
# ## The maths, with shapes
# **Memory.** Segment s has `length` tokens; layer n receives x_n [length, width] and keeps a memory m_n [memory, width] of its inputs before:
#
#     seen = [stop_gradient(m_n), x_n]  [memory + length, width]      q = x_n W_q      k, v = seen W_k, seen W_v      m_n <- last rows of seen
#
# Layer 1 of the last token sees length - 1 + memory tokens back. The oldest row of layer 2's memory is layer 1's *output* there, which saw a memory
# of its own. So each layer adds `memory`: layers · memory + length - 1. On paper, length 8, memory 8: 15, 23, 31 for one, two, three layers.
#
# **Relative positions.** Position 3 of this segment and position 3 of the one in memory would get the same absolute code. So the score of query i and
# key j depends on what they are and on their distance i - j only; R_d is the sinusoidal code of distance d, u and v are learned vectors:
#
#     score_ij = q_i · k_j  +  q_i · W_R R_(i-j)  +  u · k_j  +  v · W_R R_(i-j)  =  (q_i + u) · k_j  +  (q_i + v) · W_R R_(i-j)
#
# On paper: q = (1, 0), k = (2, 1), W_R R = (0, 3), u = (0, 1), v = (1, 1): 2 + 0 + 1 + 3 = 6; and (1, 1)·(2, 1) + (2, 1)·(0, 3) = 3 + 3 = 6.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from minillm import params
from minillm.course.record import figure_path, report
from minillm.models import gpt
from minillm.models import transformer_xl as xl
from minillm.nn.position import sinusoidal_positions
from minillm.objectives.causal import token_losses
from minillm.report.plot import COLOURS
from minillm.training.optimizer import OptimizerConfig, make_optimizer

q, k, r, u, v = np.array([[1, 0], [2, 1], [0, 3], [0, 1], [1, 1]])
assert q @ k + q @ r + u @ k + v @ r == (q + u) @ k + (q + v) @ r == 6
by_distance = jnp.array([[3.0, 2.0, 1.0, 0.0]] * 2)  # 2 queries, 4 keys (2 of memory); column c holds distance 3 - c
print("the distance of each key, for two queries:\n", xl.relative_shift(by_distance[None, None])[0, 0])


# %% [markdown]
# ## The naive version
# One query, one key, one term at a time. The library computes (q + v) · W_R R_d for all distances at once, which gives scores *by distance*, and then
# moves row i left by length - 1 - i: the shift above. (The 0 at the end of row 0 came in from the right: a key after the query, hidden by the mask.)


# %%
def naive_attention(p, x, memory, heads):
    """x [length, width], memory [memory, width] -> [length, width]."""
    seen, output, head = np.concatenate([memory, x]), [], x.shape[1] // heads
    for i in range(len(x)):
        parts = []
        for h in range(heads):
            cut = lambda row, h=h: row[h * head : (h + 1) * head]
            query, u, v = cut(x[i] @ p["query"]["kernel"]), cut(p["content_bias"]), cut(p["position_bias"])
            scores = []
            for j in range(len(memory) + i + 1):  # no key after the query
                key = cut(seen[j] @ p["key"]["kernel"])
                code = np.array(sinusoidal_positions(jnp.array(len(memory) + i - j), x.shape[1]))
                place = cut(code @ p["position"]["kernel"])
                scores.append((query @ key + query @ place + u @ key + v @ place) / np.sqrt(head))
            weights = np.exp(scores) / np.exp(scores).sum()
            parts.append(weights @ np.stack([cut(row @ p["value"]["kernel"]) for row in seen[: len(weights)]]))
        output.append(np.concatenate(parts) @ p["output"]["kernel"])
    return np.stack(output)


LENGTH, SYMBOLS = 8, 16
SIZE = {"vocabulary": SYMBOLS, "context": LENGTH, "width": 32, "heads": 2}
noisy = lambda leaf: leaf + 0.2 * jax.random.normal(jax.random.key(1), leaf.shape)  # u and v too, which begin at 0
born = lambda module, config: jax.tree.map(noisy, params.init_params(module.param_specs(config), jax.random.key(12)))
config = xl.Config(**SIZE, layers=1, memory=5)
layer = jax.tree.map(lambda leaf: leaf[0], born(xl, config)["blocks"]["attention"])
x, memory = np.split(np.random.default_rng(12).normal(size=(13, 32)).astype(np.float32), [LENGTH])
mask, _ = xl.visible(LENGTH, jnp.ones((1, 5), bool), None, None)
scope = xl.Scope(sinusoidal_positions(jnp.arange(12, -1, -1), 32)[None], mask, ())
library, _ = xl.relative_attention(layer, x[None], memory[None], config, scope, None)
assert np.allclose(naive_attention(jax.tree.map(np.asarray, layer), x, memory, 2), library[0], atol=1e-4)


# %% [markdown]
# ## Measure the reach
# **Predict before you run.** Change one token, 0 to 39 places before the last of five segments. For which distances does the last hidden state change
# at all: for a GPT that reads the last segment, and for Transformer-XL with a memory of 8 and one, two, three layers? All weights are random.


# %%
def in_segments(module, config, weights, ids):
    """ids [rows, n] -> hidden states of each segment [segments, rows, length, width]; the memory is handed on where there is one."""
    carry, found = module.init_carry(weights, {"tokens": ids}, config, LENGTH) if module is xl else None, []
    for start in range(0, ids.shape[1], LENGTH):
        output = module.apply(weights, {"tokens": ids[:, start : start + LENGTH]}, config, carry=carry)
        carry, found = output.carry, [*found, output.hidden]
    return jnp.stack(found)


text = jax.random.randint(jax.random.key(3), (5 * LENGTH,), 0, SYMBOLS)
changed = (text + jnp.eye(len(text), dtype=int)[::-1]) % SYMBOLS  # row d: another token d places before the last
numbers, changes = {}, {}
for name, module, layers in (("GPT", gpt, 3), *((f"XL, layers: {n}", xl, n) for n in (1, 2, 3))):
    config = module.Config(**SIZE, layers=layers, **({"memory": 8, "placement": "pre"} if module is xl else {}))
    run = jax.jit(lambda ids, module=module, config=config: in_segments(module, config, born(module, config), ids)[-1])
    last = run(jnp.concatenate([text[None], changed]))[:, -1]
    changes[name] = np.asarray(jnp.abs(last[1:] - last[0]).max(-1))
    numbers[f"reach, {name}"] = np.flatnonzero(changes[name])[-1]
    assert (changes[name][: int(numbers[f"reach, {name}"]) + 1] > 0).all()  # nearer tokens all count

# %% [markdown]
# ## A small real experiment: what lies twelve tokens back
# Every document is a random string of 12 of 16 symbols, written four times: from its second copy on, each token is the one 12 places earlier.
# Segments have 8 tokens. To predict the token after place i (0 ... 7) of a segment one must look 11 tokens back, that is: i + memory >= 11. In how
# many of the 8 places is that so with a memory of 2, 4, 8, 12? Elsewhere chance is 1/16. **Predict the four accuracies**; the dashed line is the
# answer. The model is trained with a memory of 16; the *same* weights are then judged with other memories, for no parameter depends on the size.
# Baselines: a GPT of the same number of parameters on the same segments; and one whose windows are three times as long, 24.

# %%
PERIOD, SEGMENTS, ROWS, STEPS, SEEDS, PLACES = 12, 6, 32, 900, 3, 8
SIZE = {"vocabulary": SYMBOLS, "layers": 2, "width": 32, "heads": 2}
XL = xl.Config(**SIZE, context=LENGTH, memory=16, hidden=64, placement="pre")
SHORT, LONG = (gpt.Config(**SIZE, context=length, hidden=77) for length in (LENGTH, 3 * LENGTH))
sizes = [params.count(module.param_specs(config)) for module, config in ((xl, XL), (gpt, SHORT), (gpt, LONG))]
print("parameters of Transformer-XL, the GPT and the GPT with long windows:", *sizes)


def documents(key, rows):
    """[rows, 49]: a string of 12, again and again."""
    return jnp.tile(jax.random.randint(key, (rows, PERIOD), 0, SYMBOLS), (1, 5))[:, : SEGMENTS * LENGTH + 1]


def predict(module, config, weights, ids, carry, first):
    """Logits for a segment [rows, length + 1] and the carry after it; first: a document begins here, the memory is another's."""
    starts = jnp.zeros(ids[:, 1:].shape, bool).at[:, 0].set(first)
    output = module.apply(
        weights, {"tokens": ids[:, :-1]} | ({"reset": starts} if module is xl else {}), config, carry=carry
    )
    return module.logits(weights, output.hidden), output.carry


def empty(module, config, rows):
    """The carry before the first document; a GPT has none."""
    return module.init_carry({}, {"tokens": jnp.zeros((rows, 1), int)}, config, 1) if module is xl else None


def train(module, config, seed):
    """Trains on segments in the order of the text -> weights. Every model reads the same number of tokens."""
    length, key, specs = config.context, jax.random.key(seed), module.param_specs(config)
    steps, parts = STEPS * LENGTH // length, SEGMENTS * LENGTH // length  # of all documents, of one
    settings = OptimizerConfig(learning_rate=3e-3, warmup_steps=50, weight_decay=0.0)
    optimizer, start = make_optimizer(settings, steps, params.decay_mask(specs)), params.init_params(specs, key)

    def step(state, number):
        weights, moments, carry = state
        part, whole = number % parts, documents(jax.random.fold_in(key, number // parts), ROWS)
        ids = jax.lax.dynamic_slice_in_dim(whole, part * length, length + 1, axis=1)

        def loss(weights):
            logits, after = predict(module, config, weights, ids, carry, part == 0)
            return token_losses(logits, ids[:, 1:])[0].mean(), after

        (_, carry), gradient = jax.value_and_grad(loss, has_aux=True)(weights)
        updates, moments = optimizer.update(gradient, moments, weights)
        return (optax.apply_updates(weights, updates), moments, carry), None

    return jax.lax.scan(step, (start, optimizer.init(start), empty(module, config, ROWS)), jnp.arange(steps))[0][0]


def judge(module, config, weights):
    """Accuracy on the third and fourth copy in fresh documents."""
    ids, length = documents(jax.random.key(1000), 128), config.context
    carry, right = empty(module, config, 128), []
    for at in range(0, SEGMENTS * LENGTH, length):
        logits, carry = predict(module, config, weights, ids[:, at : at + length + 1], carry, at == 0)
        right.append(logits.argmax(-1) == ids[:, at + 1 : at + length + 1])
    return jnp.concatenate(right, axis=1)[:, 2 * PERIOD :].mean()


every = lambda function, over: np.asarray(jax.jit(jax.vmap(function))(over))
seeds, MEMORIES = jnp.arange(SEEDS), (1, 2, 4, 8, 12, 16, 32)
remembering = jax.jit(jax.vmap(lambda seed: train(xl, XL, seed)))(seeds)
smaller = lambda size: xl.Config(**{**vars(XL), "memory": size})
accuracy = np.stack([every(lambda w, size=size: judge(xl, smaller(size), w), remembering) for size in MEMORIES])
known = np.array([np.mean([i + size >= PERIOD - 1 for i in range(PLACES)]) for size in MEMORIES])
expected = known + (1 - known) / SYMBOLS
for size, row in zip(MEMORIES, accuracy, strict=True):
    numbers[f"memory {size}"] = row.mean()
numbers["largest distance from the prediction"] = np.abs(accuracy - expected[:, None]).max()
jax.clear_caches()  # compiled programs take memory, too
short = every(lambda seed: judge(gpt, SHORT, train(gpt, SHORT, seed)), seeds)
long = jax.jit(jax.vmap(lambda seed: train(gpt, LONG, seed)))(seeds)
numbers["GPT, windows of 8"], blocks = short.mean(), every(lambda w: judge(gpt, LONG, w), long)
ids = documents(jax.random.key(1000), 16)
windows = jnp.concatenate(
    [ids[:, at : at + 25] for at in range(24)]
)  # each token with all 24 before it: one window per token
slide = lambda w: (predict(gpt, LONG, w, windows, None, True)[0][:, -1].argmax(-1) == windows[:, -1]).mean()
numbers["GPT, windows of 24"], numbers["GPT, a window of 24 per token"] = blocks.mean(), every(slide, long).mean()

# %% [markdown]
# **The figure.** Left: how much the last hidden state moves; a point is missing where it does not move at all. Right: dots are seeds. Long windows
# know what they contain: with one window per token they are right everywhere too, but then process 24 tokens for each that they predict.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4), layout="constrained")
for (name, change), colour, mark in zip(changes.items(), COLOURS, "so^v", strict=False):
    left.plot(np.where(change > 0, change, np.nan), mark + "-", color=colour, markersize=4, label=name)
left.set(yscale="log", xlabel="tokens back", ylabel="change of the last hidden state", title="Random weights")
right.plot(MEMORIES, expected, "--", color="grey", label="predicted on paper")
right.plot(MEMORIES, accuracy, "o", color=COLOURS[1], label=["Transformer-XL, segments of 8", None, None])
for name, value, colour in (("GPT, windows of 8", short, COLOURS[0]), ("GPT, windows of 24", blocks, COLOURS[2])):
    right.axhline(value.mean(), color=colour, linestyle=":", label=name)
right.set(
    xscale="log",
    xlabel="memory when judged (trained with 16)",
    ylabel="accuracy",
    ylim=(0, 1.05),
    title="Twelve tokens back",
)
_ = right.set_xticks(MEMORIES, MEMORIES), right.minorticks_off(), left.legend(), right.legend()
figure.savefig(figure_path("12", "memory.png"), dpi=120)
report("12", numbers)

# %% [markdown]
# ## What this toy does not show
# That text needs so long a memory: here nothing else helps. That what reaches so far is *learned*: no gradient flows into the memory, so a layer is
# never taught to store for later; depth reaches 31 tokens with random weights, the task is solved by looking directly. And memory costs: each layer
# keeps `memory` vectors per row, and every query scores all of them.
# ## Exercises: `minillm lessons check 12`, with `--hints` for help
# 1. `shift_to_keys(scores)` · 20 minutes, medium · scores by distance become scores by key.
# 2. `next_memory(memory, inputs, size)` · 10 minutes, easy · what a layer keeps for the next segment.
# 3. `farthest(place, layers, segment, memory)` · 25 minutes, harder · the reach, for any sizes.
# ## Recap
# Each layer looks at its own inputs of earlier segments, without a gradient. Positions become distances, so that a memory's tokens need no number of
# their own, and a longer memory can be used than was trained. The reach grows by `memory` per layer.
# **Glossary:** segment 片段 · memory 记忆 · segment-level recurrence 片段级循环 · relative position 相对位置 · distance 距离 · reach 有效范围 ·
# stop-gradient 停止梯度 · context fragmentation 上下文碎片化
# **Common errors:** absolute positions with a memory · a gradient through the memory · rows that do not go on where they stopped · a memory
# kept across a document's beginning · the layer's output stored in place of its input.
# **Next:** 13 leaves text for images; 14 runs RNN to T5 on one corpus at one budget.
