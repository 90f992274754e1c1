# %% [markdown]
# # Lesson 03 · Gradients: from the chain rule to AdamW and Adafactor
# **Sections:** 2.3.1, 2.9.q2, 4.3.2.4, 5.4.1, 5.4.2, 5.9.q2
# - **You will be able to:** derive the gradient of a two-layer network on paper and check it three ways · write SGD, momentum and AdamW from
#   their equations · read a sweep of learning rates, and say what it does not prove.
# - **Prerequisites:** lesson 02 (cross-entropy), matrix products, derivatives of exp, log, tanh. **Time:** an hour; the script, 45 s on two cores.
# - **Expected:** on paper: loss ln 4 = 1.386, gradient -0.75 · the best finite-difference step is near 1e-6 · AdamW by hand and optax agree to
#   1e-5 after 100 steps · Adafactor keeps 0.006 numbers per parameter, Adam 2 · test loss in nats per byte: SGD 2.45, momentum 2.41, Adam 2.36,
#   AdamW 2.37, Adafactor 2.37; counting pairs 2.63, counting five in a row 1.68 · SGD's best rate is 100 times Adam's.
# ## The question
# Training is written as θ* = argmin of the mean loss (2.3.1, 5.4.1), then "back-propagate and update" (4.3.2.4). *What* travels backwards, and
# *which* update? A kind warning about the formula: the argmin is the aim, not the result. Descent returns a θ with a lower loss than before, and
# nothing shows that it is the lowest; so the rule, its rate and its schedule decide what you get.
# ## The maths, with shapes
# A network with one hidden layer; n examples, d inputs, k classes; Y has the targets as one-hot rows:
#
#     A = X W1 + b1, H = tanh(A)   [n, hidden]      Z = H W2 + b2   [n, k]      P = softmax(Z) row by row      L = -mean log P[i, y_i]
#
# Write dA for ∂L/∂A: **it has the shape of A**, which settles most transposes. From the end to the start:
#
#     dZ  = (P - Y) / n                  because ∂(log sum exp(z) - z_y) / ∂z_j = p_j - [j = y]
#     dW2 = H^T dZ     db2 = column sums of dZ      dA = (dZ W2^T) * (1 - H * H)     tanh' = 1 - tanh²
#     dW1 = X^T dA     db1 = column sums of dA
#
# On paper: logits (0, ln 3) give P = (1/4, 3/4). If the target is class 0, then L = ln 4 and dZ = (-3/4, 3/4): raise the target's logit, lower
# the other by as much. Logits (0, z) are the binary case of 5.4.2: P[1] = sigmoid(z), and the gradient is again ŷ - y.

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
from minillm.models import gpt
from minillm.models.contract import Model, Output
from minillm.nn.embedding import embed_tokens, embedding_specs
from minillm.nn.linear import linear, linear_specs
from minillm.objectives.causal import causal, token_losses
from minillm.training.optimizer import OptimizerConfig, make_optimizer, make_schedule
from minillm.training.step import accumulate, global_norm, init_state, make_gradient, make_train_step
from minillm.tuning import full

paper = jax.value_and_grad(lambda logits: token_losses(logits, jnp.array(0))[0])(jnp.array([0.0, jnp.log(3.0)]))
numbers = {"loss of the example on paper": paper[0], "gradient of its target's logit": paper[1][0]}


# %% [markdown]
# ## The naive version: back-propagation in NumPy
# The forward pass keeps X, H and P for the backward pass: that memory is why large batches and long texts are expensive.
#
# **Predict before you run.** After `jax.grad`, a third check needs no calculus: for any direction u, (L(θ + h u) - L(θ - h u)) / 2h must be the inner
# product of gradient and u, up to an error of order h². So is h = 1e-12 a better choice than h = 1e-6?


# %%
def loss_and_gradient(parameters, x, targets):
    """Mean cross-entropy and its gradient, a tree like the parameters; line by line the maths above."""
    hidden, output = parameters["hidden"], parameters["output"]
    h = np.tanh(x @ hidden["kernel"] + hidden["bias"])
    z = h @ output["kernel"] + output["bias"]
    p = np.exp(z - z.max(axis=1, keepdims=True))  # the maximum cancels; without it exp overflows
    p = p / p.sum(axis=1, keepdims=True)
    dz = (p - np.eye(z.shape[1])[targets]) / len(x)
    da = (dz @ output["kernel"].T) * (1.0 - h * h)
    gradient = {"hidden": {"kernel": x.T @ da, "bias": da.sum(0)}, "output": {"kernel": h.T @ dz, "bias": dz.sum(0)}}
    return -np.log(p[np.arange(len(x)), targets]).mean(), gradient


logits = lambda parameters, x: linear(parameters["output"], jnp.tanh(linear(parameters["hidden"], x)))  # the library's
automatic = jax.jit(jax.grad(lambda parameters, x, targets: token_losses(logits(parameters, x), targets)[0].mean()))
random = np.random.default_rng(3)
draw = lambda: (random.normal(size=(6, 5)).astype(np.float32), random.integers(4, size=6))
small = params.prefix(linear_specs(5, 7, (None, "hidden"), scale=0.5), "hidden")
small |= params.prefix(linear_specs(7, 4, ("hidden", None), scale=0.5), "output")
start, (x, targets) = params.init_params(small, jax.random.key(3)), draw()
close = lambda a, b: jax.tree.all(jax.tree.map(lambda a, b: np.allclose(a, b, atol=1e-6), a, b))
assert close(loss_and_gradient(jax.tree.map(np.asarray, start), x, targets)[1], automatic(start, x, targets))

double = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), start)
direction = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), double)
moved = lambda h: loss_and_gradient(jax.tree.map(lambda p, u: p + h * u, double, direction), x, targets)[0]
slopes = jax.tree.map(lambda g, u: (g * u).sum(), loss_and_gradient(double, x, targets)[1], direction)
error = lambda h: abs((moved(h) - moved(-h)) / (2 * h) - sum(jax.tree.leaves(slopes)))
errors = {power: error(10.0**power) for power in range(-12, 0)}
print("finite differences:", *(f"h=1e{power}: {value:.0e}" for power, value in errors.items()))
numbers["log10 of the best finite-difference step"] = min(errors, key=errors.get)
assert errors[-6] < 1e-8 < errors[-12]  # no: the two losses then share nearly all their digits, and rounding is left

# %% [markdown]
# ## From gradients to steps: SGD, momentum and AdamW by hand
# Adam (Kingma and Ba 2015) keeps running means m of the gradient and v of its square. Both start at 0, so after t steps they are too small by the
# factor 1 - β^t: the *bias correction* divides by it. AdamW (Loshchilov and Hutter 2019) subtracts the decay **beside** the scaled gradient;
# inside it, division by sqrt(v) would distort it. (The rate multiplies λ too, as in optax and torch.)
#
#     m = β1 m + (1 - β1) g        v = β2 v + (1 - β2) g²        m̂ = m / (1 - β1^t)        v̂ = v / (1 - β2^t)
#     θ = θ - rate_t ( m̂ / (sqrt(v̂) + ε) + λ θ )                λ θ for matrices and tables only
#
# Before it comes clipping: g · min(1, c / |g|), where |g| is the norm of **all** leaves as one vector. On paper: leaves of norm 3 and 4, c = 1:
# |g| = 5, they become 0.6 and 0.8, and the direction stays. Clipped one by one both would be 1: another direction. The rate rises from a tenth of
# its peak in 10 steps (warm-up), then falls along half a cosine to a tenth.
#
# **Adafactor** (Shazeer and Stern 2018) keeps only row sums r and column sums c of a matrix of squares V and uses r c^T / sum(r), exact where V has
# rank one. It is an optimizer: 2.9.q2 lists it beside warm-up, but one sets direction and scale, the other the rate over time; use them together.


# %%
def sgd(parameters, gradients, velocity, step, rate, config, decays):
    """v = momentum v + g; theta = theta - rate v. Plain SGD is momentum 0."""
    beta = config.momentum if config.name == "momentum" else 0.0
    velocity = jax.tree.map(lambda v, g: beta * v + g, velocity, gradients)
    return jax.tree.map(lambda p, v: p - rate * v, parameters, velocity), velocity


def adamw(parameters, gradients, moments, step, rate, config, decays):
    """The equations above; `step` counts from 1, moments = (m, v), decays = tree of bool."""
    b1, b2 = config.beta1, config.beta2
    first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, moments[0], gradients)
    second = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, moments[1], gradients)
    scale = lambda m, v: m / (1 - b1**step) / (jnp.sqrt(v / (1 - b2**step)) + config.epsilon)
    move = lambda p, m, v, decay: p - rate * (scale(m, v) + config.weight_decay * decay * p)
    return jax.tree.map(move, parameters, first, second, decays), (first, second)


zeros, decays = jax.tree.map(jnp.zeros_like, start), params.decay_mask(small)
for name, rule, state in (("sgd", sgd, zeros), ("momentum", sgd, zeros), ("adamw", adamw, (zeros, zeros))):
    config = OptimizerConfig(name, learning_rate=0.05, warmup_steps=10, clip_norm=0.8)  # clips some steps, not all
    optimizer, clipped = make_optimizer(config, 100, decays), 0
    by_hand, library, library_state = start, start, optimizer.init(start)
    for step in range(100):
        x, targets = draw()
        rate = 0.05 * (0.1 + 0.9 * (step / 10 if step < 10 else (1 + np.cos(np.pi * (step - 10) / 90)) / 2))
        gradients = automatic(by_hand, x, targets)
        factor = jnp.minimum(1.0, config.clip_norm / global_norm(gradients))  # one for the whole tree
        clipped += int(factor < 1.0)
        gradients = jax.tree.map(lambda g, factor=factor: g * factor, gradients)
        by_hand, state = rule(by_hand, gradients, state, step + 1, rate, config, decays)
        updates, library_state = optimizer.update(automatic(library, x, targets), library_state, library)
        library = optax.apply_updates(library, updates)
    gap = max(jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), by_hand, library)))
    assert gap < 1e-5 and 5 < clipped < 95  # noqa: PT018
numbers["AdamW by hand against optax, largest difference"] = gap

squares = np.outer([1.0, 2.0, 5.0], [4.0, 3.0])
assert np.allclose(np.outer(squares.sum(1), squares.sum(0)) / squares.sum(), squares)
large = gpt.param_specs(gpt.Config(vocabulary=8192))
for name in ("momentum", "adam", "adafactor"):
    optimizer = make_optimizer(OptimizerConfig(name), 100, params.decay_mask(large))
    state = jax.eval_shape(optimizer.init, params.abstract_params(large))  # shapes only, nothing is allocated
    numbers[f"{name}: state per parameter"] = sum(leaf.size for leaf in jax.tree.leaves(state)) / params.count(large)

# %% [markdown]
# ## A small real experiment: five optimizers on Python's manual
# The same network as a language model (Bengio et al. 2003): its input is the embeddings of the last 8 bytes, side by side. The text is the manual
# inside your Python; two chapters are held out that no other repeats (some do: a copy would spoil the test). Each optimizer runs at five rates and
# three seeds; the rate is **chosen on the validation chapter**, the loss reported on the test chapter. The baseline counts n-grams (lesson 02).
# First, **gradient accumulation**: four parts of a batch, one after the other, give the whole batch's gradient if every part is divided by the
# weight of the *whole*. The mean of the parts' means is wrong as soon as their weights differ, as they do under padding.

# %%
CONTEXT, STEPS, BATCH, SEEDS = 8, 400, 128, 3
cut = lambda ids: np.lib.stride_tricks.sliding_window_view(ids, CONTEXT + 1)
as_batch = lambda rows: {"tokens": rows[:, :-1], "targets": rows[:, -1], "weights": jnp.ones(len(rows))}
manual = {d.name: np.frombuffer(d.text.encode(), np.uint8).astype(np.int32) for d in corpora.read("python-docs")}
validation, test = manual.pop("formatstrings"), manual.pop("string-methods")
windows = jnp.asarray(np.concatenate([cut(ids) for ids in manual.values()]))
specs = params.prefix(embedding_specs(256, 16, scale=0.5), "embedding")
specs |= params.prefix(linear_specs(CONTEXT * 16, 128, (None, "hidden"), scale=128**-0.5), "hidden")
specs |= params.prefix(linear_specs(128, 256, ("hidden", "vocab"), scale=128**-0.5), "output")
embed = lambda parameters, tokens: embed_tokens(parameters["embedding"], tokens).reshape(-1, CONTEXT * 16)
hidden = lambda parameters, x: jnp.tanh(linear(parameters["hidden"], x))
apply = lambda parameters, batch, key=None: Output(hidden(parameters, embed(parameters, batch["tokens"])))
model = Model(None, apply, lambda parameters, hidden: linear(parameters["output"], hidden))
gradient = make_gradient(causal, model, full(), {})
real = (jnp.arange(64) % 16 <= jnp.arange(64) // 16 * 5) * 1.0  # the four parts have 1, 6, 11 and 16 real targets
trained, batch = params.init_params(specs, jax.random.key(0)), as_batch(windows[:64]) | {"weights": real}
whole = gradient(trained, {}, {}, batch, None)[0]
assert close(accumulate(gradient, 4)(trained, {}, {}, batch, None)[0], whole)


def final_losses(name, rate, seed):
    """Trains once -> losses on the held-out chapters. `rate` may be traced: it is the last factor of every rule."""
    rule = make_optimizer(OptimizerConfig(name, learning_rate=1.0, warmup_steps=40), STEPS, params.decay_mask(specs))
    optimizer, key = optax.chain(rule, optax.scale(rate)), jax.random.key(seed)
    train_step = make_train_step(gradient, optimizer, full(), {})

    def body(state, step):
        rows = jax.random.randint(jax.random.fold_in(key, step), (BATCH,), 0, len(windows))
        return train_step(state, {}, as_batch(windows[rows]), key)[0], None

    start = init_state(params.init_params(specs, key), {}, optimizer)
    trained = jax.lax.scan(body, start, jnp.arange(STEPS))[0].trainable
    nll = lambda ids: jnp.divide(*causal(model, trained, as_batch(cut(ids))).metrics["nll"])
    return jnp.stack([nll(validation), nll(test)])


sweep, best = {}, {}
for name, lowest in {"sgd": 0.1, "momentum": 0.01, "adam": 1e-3, "adamw": 1e-3, "adafactor": 1e-3}.items():
    rates = lowest * np.array([1.0, 3.0, 10.0, 30.0, 100.0], np.float32)
    runs = np.repeat(rates, SEEDS), np.tile(np.arange(SEEDS), len(rates))
    losses = jax.jit(lambda runs, name=name: jax.lax.map(lambda run: final_losses(name, *run), runs))(runs)
    losses = np.asarray(losses).reshape(len(rates), SEEDS, 2)
    sweep[name], best[name] = (rates, losses[..., 0].mean(1)), int(losses[..., 0].mean(1).argmin())
    assert 0 < best[name] < len(rates) - 1, f"{name}: the best rate is at the edge, so the sweep is too narrow"
    mean, deviation = losses[best[name], :, 1].mean(), losses[best[name], :, 1].std(ddof=1)
    print(f"{name:9} rate {rates[best[name]]:<5.2g} test loss {mean:.3f} ± {deviation:.3f} over {SEEDS} seeds")
    numbers[f"{name}: test loss"] = mean
numbers["best rate of SGD over Adam's"] = sweep["sgd"][0][best["sgd"]] / sweep["adam"][0][best["adam"]]
for order in (2, 5):
    counts = ngram.log_probabilities(ngram.fit(list(manual.values()), order, 256), test)
    numbers[f"counting {order}-grams: test loss"] = -counts[CONTEXT - 1 :].mean()

# %% [markdown]
# ## The figure
# Left: four schedules after the same warm-up. Right: the sweep. Read where each valley lies and how wide it is. SGD's best rate is a hundred
# times Adam's, so "1 to 2 orders smaller for fine-tuning" (2.9.q2, 5.9.q2) is a habit, no law, and needs the optimizer's name.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for schedule in ("cosine", "linear", "inverse_square_root", "constant"):
    rate = make_schedule(OptimizerConfig(learning_rate=1.0, schedule=schedule, warmup_steps=100), 1000)
    left.plot(range(0, 1001, 10), [float(rate(step)) for step in range(0, 1001, 10)], label=schedule.replace("_", " "))
for name, (rates, losses) in sweep.items():
    right.plot(rates, losses, "o-", label=name)
left.set(xlabel="step", ylabel="learning rate / peak", title="Schedules, 100 steps of warm-up", ylim=(0, 1.3))
right.set(xscale="log", xlabel="peak learning rate", ylabel="validation loss (nats per byte)", title="Mean of 3 seeds")
left.legend(ncols=2, loc="upper center")
right.legend()
figure.savefig(figure_path("03", "schedules_and_sweep.png"), dpi=120)
report("03", numbers)

# %% [markdown]
# ## What this toy does not show
# - A ranking of optimizers: rates lie a factor of three apart, other settings stayed as they were, 400 steps give weight decay no time to help.
# - That networks beat counting. They beat pairs; five in a row win clearly: they counted all the text, the network read an eighth.
# ## Exercises: `minillm lessons check 03`, with `--hints` for help
# 1. `softmax_cross_entropy_gradient(logits, targets, weights)` · 15 minutes, easy · the p - y rule where some rows are padding.
# 2. `adamw_update(parameter, gradient, first, second, step, rate)` · 25 minutes, medium · close this page, write it from the equations.
# ## Recap
# A gradient has its parameter's shape; softmax with cross-entropy gives p - y; finite differences in float64 check it. Clip the whole tree by one
# factor, correct the moments' bias, decay beside them, and choose the rate on validation text.
# - **Glossary:** back-propagation 反向传播 · chain rule 链式法则 · learning rate 学习率 · warm-up 预热 · momentum 动量 ·
#   weight decay 权重衰减 · gradient clipping 梯度裁剪 · gradient accumulation 梯度累积 · finite difference 有限差分
# - **Common errors:** no 1/n in dZ (the rate then depends on the batch size) · decay added to the gradient (L2 inside Adam) · t counted from 0 in
#   the bias correction (division by zero) · clipping leaf by leaf · choosing the rate on the test text.
# - **Next:** lesson 04, layers: what the gradients flow through, from dense to convolution.
