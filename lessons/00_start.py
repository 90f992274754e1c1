# %% [markdown]
# # Lesson 00 · Setting up, and JAX in an hour
#
# **Sections:** 1.5.1, 1.7, 1.7.1, 1.7.2, 2.5.1, 2.7, 2.7.1, 3.5.1, 3.7, 3.7.1, 3.7.2, 4.5.1, 4.5.1.1, 4.7, 4.7.1, 4.7.2, 5.5.1, 5.7, 5.7.1
# - **You will be able to:** install the course and say what a result depends on · read a shape error, and find the bug that raises none · walk
#   through a tree of parameters · draw random numbers that are the same tomorrow · say what `jit` does, when it compiles, and what its errors mean.
# - **Prerequisites:** Python, NumPy, and what a derivative is. **Time:** an hour; the script, 15 s on two cores.
# - **Expected:** a loss of 0 that broadcasting makes 0.5 · one key used twice: correlation 1, two keys: about 0 · 30 lengths: 30 compilations, padded
#   to powers of two: 6 · a table of 65,792 parameters begins at ln 256 = 5.5 nats per byte and learns to 2.49; counting gives 2.45.
#
# ## Setting up
#     python3 -m venv .venv && source .venv/bin/activate       first make and enter an environment ...
#     pip install -e ".[test]"                                 ... then install into it (5.5.1 has the two the other way round)
#     minillm lessons list
#
# The documents set up TensorFlow and Keras (1.5.1, 3.5.1), PyTorch (2.5.1, 5.5.1) or both (4.5.1.1); any of them can carry these ideas. This course
# uses JAX, because there a model is a function and its weights are data. Three kind notes: `tensorflow-gpu` (1.5.1) has been withdrawn;
# `transformers` is a library, its models are fetched when they are first loaded; and an unpinned `pip install` gives another program next year, so
# write down what you had. The next cell prints it. Of the reading lists (1.7.1 to 5.7.1): the conference NIPS (4.7.1) is called NeurIPS since 2018.
#
# ## The question
# NumPy computes a model's output. Training also needs its gradient, many random numbers that can be had again, and speed. How does one get these from
# a plain function, without rewriting it? JAX *transforms functions*: grad, vmap, jit. In return the function must be pure.

# %%
import json
import time
from hashlib import sha256

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from minillm import params, sharding
from minillm.course.record import figure_path, report
from minillm.data import corpora
from minillm.experiment.folder import surroundings
from minillm.models import gpt
from minillm.report.plot import COLOURS

print(json.dumps(surroundings(sharding.make_mesh(), ["lesson 00"])["versions"]))

# %% [markdown]
# ## Shapes, and the bug that raises no error
# Two axes fit if they are equal or one of them is 1, which is then repeated; missing axes are added *in front*. On paper: predictions p = ((0), (1))
# have the shape [2, 1], targets y = (0, 1) the shape [2]. All are right, so the squared error should be 0. But y becomes [1, 2], and p - y the table
#
#     0 - 0   0 - 1        =   0  -1
#     1 - 0   1 - 1            1   0          whose mean square is 2/4 = 0.5: wrong, and silent
#
# So this library writes shapes into signatures (`Float[Array, "batch length model"]`), and its tests check them.

# %%
p, y = jnp.array([[0.0], [1.0]]), jnp.array([0.0, 1.0])
numbers = {"loss by mistake": jnp.square(p - y).mean(), "loss": jnp.square(p[:, 0] - y).mean()}
numbers["arange(3)[10]"] = jnp.arange(3)[10]  # an index too large is moved to the edge; NumPy would raise an error
changed = jnp.zeros(3).at[1].set(5.0)  # arrays never change: this is a new one


# %% [markdown]
# ## Pytrees: parameters are nested dicts
# A tree is dicts, lists and tuples with arrays as leaves. `jax.tree.map` applies a function to each leaf; dicts are walked in the order of their
# sorted keys. Here a path such as `blocks/attention/query/kernel` is a parameter's name everywhere. The naive version, equal to the library's:


# %%
def flatten_by_hand(tree, path=""):
    """Nested dicts -> {path: leaf}."""
    if not isinstance(tree, dict):
        return {path[1:]: tree}
    return {name: leaf for key in sorted(tree) for name, leaf in flatten_by_hand(tree[key], f"{path}/{key}").items()}


def init_by_hand(specs, key):
    """A table path -> ParamSpec (shape, how it is born) -> {path: array}. Each leaf's key is made from its *name*."""
    found = {}
    for path, row in specs.items():
        word = int.from_bytes(sha256(path.encode()).digest()[:4], "big")
        noise = jax.random.normal(jax.random.fold_in(key, word), row.shape)
        found[path] = {"normal": row.scale * noise, "zeros": jnp.zeros(row.shape), "ones": jnp.ones(row.shape)}[
            row.init
        ]
    return found


specs = gpt.param_specs(gpt.Config(vocabulary=64, context=16, layers=2, width=32, heads=2))
tree = params.init_params(specs, jax.random.key(0))
flat = flatten_by_hand(tree)
assert flat.keys() == params.flatten(tree).keys()
assert all(a is b for a, b in zip(flat.values(), jax.tree.leaves(tree), strict=True))  # JAX walks in the same order
assert all((leaf == flat[path]).all() for path, leaf in init_by_hand(specs, jax.random.key(0)).items())
numbers["parameters of a small GPT"] = sum(leaf.size for leaf in jax.tree.leaves(tree))
assert numbers["parameters of a small GPT"] == params.count(specs)

# %% [markdown]
# ## Keys: randomness without a hidden state
# `np.random` remembers how often you called it; a JAX key is a value: same key, same numbers, whenever and wherever. So every use needs its own key:
# `split` makes several, `fold_in(key, n)` makes the n-th (of a step, of a parameter's name: adding a layer then moves no other layer's numbers).
# **Predict before you run.** Two layers are drawn with the same key. How strongly are their weights correlated?

# %%
key = jax.random.key(0)
one, two = jax.random.split(key)
correlation = lambda a, b: np.corrcoef(jax.random.normal(a, (10_000,)), jax.random.normal(b, (10_000,)))[0, 1]
numbers |= {"correlation, one key twice": correlation(key, key), "correlation, two keys": correlation(one, two)}

# %% [markdown]
# ## jit: traced once per shape, then compiled
# `jit` calls your function once with *tracers*, which have a shape and a type but no value, notes the operations and compiles them. Later calls with
# the same shapes run the compiled program and do not touch your Python again: a `print`, or a counter, happens while tracing only.
# **Predict before you run.** Sequences of lengths 1 to 30 come in. How often is the function traced? And if each is first padded to a power of two?

# %%
traces = []


@jax.jit
def total(x):
    """The sum of a sequence; notes when it is traced."""
    traces.append(x.shape)  # a side effect: allowed, but it happens at tracing time
    return jnp.sum(x)


def count_traces(pad):
    """How many shapes have been traced after each of 30 calls."""
    jax.clear_caches()
    traces.clear()
    seen = []
    for length in range(1, 31):
        x = np.ones(length, np.float32)
        total(np.pad(x, (0, 2 ** int(np.ceil(np.log2(length))) - length)) if pad else x)
        seen.append(len(traces))
    return seen


plain, padded = count_traces(pad=False), count_traces(pad=True)
numbers |= {"compilations, every length": plain[-1], "compilations, padded": padded[-1]}

# %% [markdown]
# ## Its errors, and their cures
# Read the type and the first line; the cure is nearly always one of these. Run the cell: it provokes each one.

# %%
kept = []
ERRORS = {  # what one writes: the error, and the cure
    "if on a value": (lambda: jax.jit(lambda x: x if x > 0 else -x)(1.0), "TracerBoolConversionError", "jnp.where, lax.cond"),
    "NumPy inside": (lambda: jax.jit(lambda x: np.sin(x))(1.0), "TracerArrayConversionError", "jnp.sin"),
    "float(x) inside": (lambda: jax.jit(lambda x: float(x))(1.0), "ConcretizationTypeError", "keep it an array"),
    "x[x > 0]": (lambda: jax.jit(lambda x: x[x > 0])(jnp.ones(3)), "NonConcreteBooleanIndexError", "jnp.where: shapes are fixed"),
    "shape from a value": (lambda: jax.jit(jnp.zeros)(3), "TypeError", "static_argnums: one program per value"),
    "a tracer kept": (lambda: (jax.jit(lambda x: kept.append(x))(1.0), kept[0] + 1), "UnexpectedTracerError", "return it instead"),
    "x[0] = 1": (lambda: jnp.zeros(3).__setitem__(0, 1.0), "TypeError", "x.at[0].set(1.0)"),
    "[2, 3] @ [2, 3]": (lambda: jnp.ones((2, 3)) @ jnp.ones((2, 3)), "TypeError", "print both shapes, then .T"),
    "grad of a vector": (lambda: jax.grad(jnp.square)(jnp.ones(3)), "TypeError", "a scalar: .sum() or .mean()"),
    "trees that differ": (lambda: jax.tree.map(jnp.add, {"a": 1.0}, {"b": 1.0}), "ValueError", "compare jax.tree.structure"),
}  # fmt: skip
for what, (function, expected, cure) in ERRORS.items():
    try:
        function()
    except Exception as error:
        found = type(error).__name__
    assert found == expected, (what, found)
    print(f"{what:20} {found:29} cure: {cure}")

# %% [markdown]
# ## A small real experiment: gradients find what counting knows
# All together: a tree of two leaves, logits[previous, next] = table + bias, trained by plain gradient descent on the pairs of bytes in Python's
# manual; `grad` differentiates, `scan` loops, `vmap` runs three keys side by side, `jit` compiles. Lesson 02 finds the best possible table by
# counting pairs: a baseline that nothing of this kind can beat. **Predict** the loss before the first step, and how near 2,000 steps come.

# %%
STEPS, RATE, SEEDS = 2000, 10.0, 3
ids = np.concatenate([np.frombuffer(d.text.encode(), np.uint8) for d in corpora.read("python-docs")])
counts = np.zeros((256, 256))
np.add.at(counts, (ids[:-1], ids[1:]), 1)
share = counts / counts.sum()  # of each pair among all
entropy = lambda joint, given: -(joint[joint > 0] * np.log((joint / given)[joint > 0])).sum()
numbers["counting single bytes"] = entropy(share.sum(0), 1.0)
numbers["counting pairs"] = entropy(share, np.maximum(share.sum(1, keepdims=True), 1e-12))


def loss(tree, pairs):
    """Mean cross-entropy over all pairs [previous, next], each weighted by its share."""
    return -(pairs * jax.nn.log_softmax(tree["table"] + tree["bias"])).sum()


def train(key, pairs):
    """Returns the loss before each step."""
    tree = {"table": 0.1 * jax.random.normal(key, (256, 256)), "bias": jnp.zeros(256)}

    def step(tree, _):
        value, gradient = jax.value_and_grad(loss)(tree, pairs)
        return jax.tree.map(lambda leaf, slope: leaf - RATE * slope, tree, gradient), value

    return jax.lax.scan(step, tree, None, length=STEPS)[1]


pairs = jnp.asarray(share, jnp.float32)
curves = jax.jit(jax.vmap(train, in_axes=(0, None)))(jax.random.split(key, SEEDS), pairs)  # [seeds, steps]
numbers |= {
    "first loss": curves[:, 0].mean(),
    "last loss": curves[:, -1].mean(),
    "spread of the last loss": curves[:, -1].std(ddof=1),
}
gradient, small = jax.grad(loss), {"table": jnp.zeros((256, 256)), "bias": jnp.zeros(256)}
for name, function in (("without jit", gradient), ("with jit", jax.jit(gradient))):
    jax.block_until_ready(function(small, pairs))  # compile first
    begin = time.perf_counter()
    jax.block_until_ready(
        [function(small, pairs) for _ in range(20)]
    )  # calls return at once: wait before you read the clock
    print(f"one gradient {name}: {(time.perf_counter() - begin) / 20 * 1e3:.1f} ms on this machine, now")

# %% [markdown]
# ## The figure
# Left: three keys, one curve: here the beginning does not matter. Right: each new shape costs a compilation; padding makes shapes few.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4), layout="constrained")
left.plot(np.arange(1, STEPS + 1), curves.T, color=COLOURS[0], label=["gradient descent, three keys", None, None])
for name, style in (("counting single bytes", ":"), ("counting pairs", "--")):
    left.axhline(numbers[name], color="grey", linestyle=style, label=name)
left.set(xscale="log", xlabel="step", ylabel="nats per byte", title="Learning a table of pairs")
right.step(range(1, 31), plain, where="mid", color=COLOURS[1], label="every length as it is")
right.step(range(1, 31), padded, where="mid", color=COLOURS[0], label="padded to a power of two")
right.set(xlabel="calls of the function", ylabel="compilations", title="Lengths 1 to 30")
_ = left.legend(), right.legend()
figure.savefig(figure_path("00", "learning_and_compiling.png"), dpi=120)
report("00", numbers)

# %% [markdown]
# ## What this toy does not show
# That gradients are a slow way to count: where a table fits, they are; a network shares what it learns between contexts, a table cannot. Nor a speed:
# the milliseconds above are this machine's, now. Nor several devices: lesson 16.
# ## Exercises: `minillm lessons check 00`, with `--hints` for help
# 1. `distances(x, y)` · 10 minutes, easy · broadcasting on purpose.
# 2. `global_norm(tree)` · 10 minutes, easy · one number from a tree.
# 3. `draw(key, shapes)` · 15 minutes, medium · a key for each name.
# 4. `huber(x)` · 15 minutes, medium · a function with two cases that `jit` accepts.
# ## Recap
# Shapes broadcast silently. Parameters are trees. A key is used once. `jit` traces once per shape, without values. Write pure functions; transform.
# **Glossary:** array 数组 · shape 形状 · broadcasting 广播 · pytree 树形结构 · random key 随机密钥 · pure function 纯函数 · tracing 追踪 ·
# just-in-time compilation 即时编译 · gradient 梯度 · vectorisation 向量化 · virtual environment 虚拟环境
# **Common errors:** [n, 1] minus [n] · a key used twice · a jitted function defined inside a loop (compiled each time) · timing without
# `block_until_ready` · an index out of range, which raises nothing.
# **Next:** 01, from text to tokens.
