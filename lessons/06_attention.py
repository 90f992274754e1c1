# %% [markdown]
# # Lesson 06 · Attention: who reads from whom
#
# **Sections:** 1.7.3, 3.2.1, 3.3.1, 4.7.3
#
# - **You will be able to:** compute attention for three tokens on paper · say why scores are divided by sqrt(d), and measure it · build causal,
#   padding and segment masks and prove by a gradient that nothing leaks · explain what positions add.
# - **Prerequisites:** lesson 03 (softmax and its gradient), matrix products.
# - **Time:** an hour to read; the script takes about 30 s on two cores.
# - **Expected:** on paper: outputs 4, 16/3, 4; masking after the softmax: row sum 3/4 · scores that are not divided spread like sqrt(d): 16 at
#   d = 256, the largest of 32 weights is then 0.92, not 0.17 · recall: attention 1.00, the uniform average at most 1/6 up to chance.
#
# ## The question
# A network that reads a text must bring distant words together: a name and the pronoun that means it. The documents name attention as the
# mechanism that "focuses on key information" (3.2.1) and as a part of every model's layers (3.3.1). But an average over all words is blind,
# and a table of fixed weights knows distances, not meanings. How can a token choose, by content, what to read, with all of it differentiable?
#
# (A kind note on 1.7.3 and 4.7.3: "Attention is all you need", Vaswani et al. 2017, trained translation from scratch; pretraining at scale came
# with GPT and BERT in 2018. BERT is by Devlin et al.; GPT-2's report has no arXiv number, the one printed beside it is BART's.)
#
# ## The maths, with shapes
# Each token sends out a *query* (what I look for), a *key* (what I offer to be found by) and a *value* (what I give when found):
#
#     S = Q K^T / sqrt(d)   [n, m]       n queries [n, d], m keys [m, d]; S[i, j]: how well key j answers query i
#     W = softmax(S) along the keys      each row is a distribution: weights >= 0, sum 1
#     output = W V          [n, d]       a weighted average of the values [m, d]
#
# On paper: three tokens, d = 4, all queries (2, 0, 0, 0), keys (ln 2, 0, 0, 0), 0, 0, first entries of the values 4, 8, 0. The scores of every
# row are 2 ln 2 / sqrt(4) = ln 2, 0, 0; their exponentials 2, 1, 1; the weights 1/2, 1/4, 1/4; the output 2 + 2 + 0 = 4. A **causal mask** hides
# what comes later: its scores become -infinity *before* the softmax, so that the weights of the rest still sum to 1. Row 2 then has weights
# 2/3, 1/3 and the output 16/3; row 1 sees itself alone: 4.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from minillm import params
from minillm.course.record import figure_path, report
from minillm.nn import attention
from minillm.nn.embedding import embed_tokens, embedding_specs
from minillm.nn.feedforward import feedforward, feedforward_specs
from minillm.nn.linear import linear, linear_specs
from minillm.nn.position import rotate, sinusoidal_positions
from minillm.objectives.causal import token_losses
from minillm.training.optimizer import OptimizerConfig, make_optimizer

first = lambda *numbers: jnp.zeros((1, 3, 1, 4)).at[0, :, 0, 0].set(jnp.array(numbers))  # [batch, length, heads, head]
query, key, value = first(2.0, 2.0, 2.0), first(np.log(2.0), 0.0, 0.0), first(4.0, 8.0, 0.0)
paper = attention.dot_product_attention(query, key, value, attention.causal_mask(3))[0, :, 0, 0]
assert np.allclose(paper, [4.0, 16 / 3, 4.0])
late = (attention.attention_weights(query, key) * attention.causal_mask(3))[0, 0]  # the mistake: masked too late
numbers = {"second output on paper": paper[1], "its row sum when masked after the softmax": late[1].sum()}


# %% [markdown]
# ## The naive version
# Loops over queries and keys. The library's `dot_product_attention` does all rows, heads and examples at once; `causal_attention` also skips
# the half that a causal mask throws away. Masks combine with `&`: causal (no future), padding (no filler), segments (no other document).


# %%
def attention_by_loops(query, key, value, mask):
    """query, key, value [length, head], mask [length, length] -> [length, head]: one output at a time."""
    output = np.zeros_like(value)
    for i in range(len(query)):
        seen = [j for j in range(len(key)) if mask[i, j]]
        scores = np.array([query[i] @ key[j] / np.sqrt(len(key[j])) for j in seen])
        weights = np.exp(scores - scores.max())  # subtracting the maximum changes no weight and avoids overflow
        for j, weight in zip(seen, weights / weights.sum(), strict=True):
            output[i] += weight * value[j]
    return output


random = np.random.default_rng(6)
query, key, value = random.normal(size=(3, 2, 64, 2, 8)).astype(np.float32)  # 2 examples, 64 tokens, 2 heads of size 8
causal, valid = attention.causal_mask(64), np.arange(64) < np.array([[64], [40]])  # the second ends in 24 of padding
segments = jnp.asarray(np.stack([np.arange(64) // 20, np.arange(64) // 33]))  # documents packed into one row
for mask in (causal, causal & attention.padding_mask(valid), causal & attention.segment_mask(segments)):
    fast = attention.dot_product_attention(query, key, value, mask)
    wide = np.broadcast_to(mask, (2, 1, 64, 64))
    for b, h in np.ndindex(2, 2):  # every head is an attention of its own: that is multi-head
        slow = attention_by_loops(query[b, :, h], key[b, :, h], value[b, :, h], wide[b, 0])
        assert np.allclose(fast[b, :, h], slow, atol=1e-5)
assert np.allclose(attention.causal_attention(query, key, value, segments), fast, atol=1e-5)  # the last of the masks

# %% [markdown]
# ## Why sqrt(d)?
# If the entries of q and k are independent with mean 0 and variance 1, q · k is a sum of d terms of variance 1: its standard deviation is sqrt(d).
# A softmax of large scores is nearly one-hot, and its derivative, diag(w) - w w^T, then nearly 0: no gradient passes.
# **Predict before you run.** 32 random keys, d = 256, no division: how large is the largest of the 32 weights, on average?

# %%
SIZES, SEEDS = (4, 16, 64, 256), 5
spread, largest, passing = (np.zeros((2, len(SIZES), SEEDS)) for _ in range(3))
for column, seed in np.ndindex(len(SIZES), SEEDS):
    size = SIZES[column]
    query, key = jax.random.normal(jax.random.key(seed), (2, 1, 32, 8, size))  # 32 queries and 32 keys in 8 heads
    for row, factor in enumerate((1.0, size**0.5)):  # the library divides; a factor sqrt(d) undoes it
        weights = attention.attention_weights(query * factor, key)
        spread[row, column, seed] = jnp.einsum("bqhd,bkhd->bhqk", query, key).std() * factor / size**0.5
        largest[row, column, seed] = weights.max(-1).mean()
        passing[row, column, seed] = (weights * (1 - weights)).sum(-1).mean()  # the trace of diag(w) - w w^T
for row, name in enumerate(("divided", "not divided")):
    numbers[f"{name}, d = 256: standard deviation of the scores"] = spread[row, -1].mean()
    numbers[f"{name}, d = 256: largest of 32 weights"] = largest[row, -1].mean()
    numbers[f"{name}, d = 256: trace of the softmax's derivative"] = passing[row, -1].mean()
assert (passing[0] > passing[1]).all()  # for every size and every seed

# %% [markdown]
# ## Who reads from whom: proof by gradient
# Output i may depend on input j only if j <= i; so the derivative of one by the other must be *exactly* zero elsewhere. This test finds what
# looking at code does not. Masking after the softmax fails it: hidden scores no longer pick values, but still sit in the denominator.

# %%
layer = params.init_params(attention.attention_specs(16, 16), jax.random.key(0))
layer = jax.tree.map(lambda leaf: 15 * leaf, layer)  # 0.02 * 15: scores near 1
x, mask, project = jax.random.normal(jax.random.key(1), (1, 10, 16)), attention.causal_mask(10), attention.project_heads
# the layer with `attend` in place of its attention; the norm of the derivative of [output position] by [input position]
through = lambda attend: lambda x: linear(layer["output"], attention.merge_heads(attend(*project(layer, x, 2))))
dependence = lambda attend: jnp.sqrt(jnp.square(jax.jacobian(through(attend))(x)).sum((0, 2, 3, 5)))
in_time = lambda query, key, value: attention.dot_product_attention(query, key, value, mask)
late = lambda query, key, value: jnp.einsum("bhqk,bkhd->bqhd", attention.attention_weights(query, key) * mask, value)
assert np.allclose(through(in_time)(x), attention.multi_head_attention(layer, x, 2, mask), atol=1e-6)
future, right, wrong = np.triu(np.ones((10, 10), bool), k=1), dependence(in_time), dependence(late)
assert (right[future] == 0).all() and (right[~future] > 0).all() and (wrong[future] > 0).all()  # noqa: PT018
numbers["masked late: dependence on the future over the past"] = wrong[future].mean() / wrong[~future].mean()

# %% [markdown]
# ## What positions add
# Without a mask, attention treats its input as a set: permuted tokens give permuted outputs, so "dog bites man" is "man bites dog". Three cures:
# a **learned** vector per position, added to x; fixed **sinusoidal** ones; or **rotary**: q and k turn by an angle that grows with the position.
# On paper, d = 2: q = k = (1, 0) at positions m and n become (cos m, sin m) and (cos n, sin n), so q · k = cos(m - n): only the distance counts.

# %%
order, positions = random.permutation(10), jnp.arange(10)[None]
plain, table = through(attention.dot_product_attention), jax.random.normal(jax.random.key(2), (10, 16))
turned = lambda q, k, v: attention.dot_product_attention(rotate(q, positions), rotate(k, positions), v)
sinusoidal = lambda x: plain(x + sinusoidal_positions(positions, 16))
ways = {"none": plain, "learned": lambda x: plain(x + table), "sinusoidal": sinusoidal, "rotary": through(turned)}
for name, function in ways.items():
    change = float(jnp.abs(function(x[:, order]) - function(x)[:, order]).max())
    print(f"positions: {name:10}  outputs change by {change:.1e} when the tokens are shuffled")
    assert (change < 1e-5) == (name == "none")
score = lambda pair, m, n: jnp.vdot(rotate(pair[0], jnp.array([[m]])), rotate(pair[1], jnp.array([[n]])))
pair, unit = jax.random.normal(jax.random.key(3), (2, 1, 1, 1, 8)), jnp.zeros((2, 1, 1, 1, 2)).at[..., 0].set(1.0)
assert np.allclose(score(pair, 5, 2), score(pair, 105, 102), atol=1e-4)
numbers["rotary score at distance 3 on paper, cos 3"] = score(unit, 7, 4)

# %% [markdown]
# ## A small real experiment: recall
# Six pairs such as "c 7" are shown, then one of the six letters: which number came with it? The embedding of a pair is the sum of its two. The
# baseline has the same parameters, but its queries are set to 0: all weights are 1/6. Its sum of letters plus sum of numbers is the same however
# letters and numbers are paired, so it cannot beat 1/6; guessing blindly among 12 numbers gives 1/12. **Predict** whether one layer reaches 1.

# %%
ITEMS, PAIRS, WIDTH, STEPS, BATCH = 12, 6, 32, 600, 128
embedding, head = embedding_specs(ITEMS, WIDTH, scale=1.0), linear_specs(WIDTH, ITEMS, ("model", "vocab"))
specs = params.prefix(embedding, "letters") | params.prefix(embedding, "digits") | params.prefix(head, "head")
specs |= params.prefix(attention.attention_specs(WIDTH, WIDTH), "attention")
specs |= params.prefix(feedforward_specs(WIDTH, 4 * WIDTH), "feedforward")


def sample(key, count):
    """letters, digits [count, PAIRS], none twice in a row; the letter that is asked for and its digit [count]."""
    shuffle, choose = jax.random.split(key)
    letters, digits = jax.random.uniform(shuffle, (2, count, ITEMS)).argsort(-1)[..., :PAIRS]
    place = jax.random.randint(choose, (count, 1), 0, PAIRS)
    pick = lambda table: jnp.take_along_axis(table, place, 1)[:, 0]
    return (letters, digits, pick(letters)), pick(digits)


def answer(parameters, letters, digits, asked, looks):
    """Logits [batch, ITEMS] and weights [batch, PAIRS]; looks = 0 makes all weights equal."""
    question = embed_tokens(parameters["letters"], asked)[:, None]
    pairs = embed_tokens(parameters["letters"], letters) + embed_tokens(parameters["digits"], digits)
    query, key, value = attention.project_heads(parameters["attention"], jnp.concatenate([pairs, question], 1), 1)
    query, key, value = looks * query[:, -1:], key[:, :-1], value[:, :-1]
    found = attention.merge_heads(attention.dot_product_attention(query, key, value))
    x = question + linear(parameters["attention"]["output"], found)
    x = (x + feedforward(parameters["feedforward"], x))[:, 0]
    return linear(parameters["head"], x), attention.attention_weights(query, key)[:, 0, 0]


def train(looks, seed):
    """Trains on fresh samples -> parameters and the accuracy on 4096 others."""
    optimizer = make_optimizer(OptimizerConfig(learning_rate=3e-3, warmup_steps=40), STEPS, params.decay_mask(specs))
    run, start = jax.random.key(seed), params.init_params(specs, jax.random.key(seed))
    loss = lambda parameters, question, target: token_losses(answer(parameters, *question, looks)[0], target)[0].mean()

    def step(state, number):
        gradients = jax.grad(loss)(state[0], *sample(jax.random.fold_in(run, number), BATCH))
        updates, moments = optimizer.update(gradients, state[1], state[0])
        return (optax.apply_updates(state[0], updates), moments), None

    (trained, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), jnp.arange(STEPS))
    question, target = sample(jax.random.fold_in(run, STEPS), 4096)
    return trained, (answer(trained, *question, looks)[0].argmax(-1) == target).mean()


runs = jnp.repeat(jnp.array([1.0, 0.0]), 3), jnp.tile(jnp.arange(3), 2)
trained, accuracy = jax.jit(lambda runs: jax.lax.map(lambda run: train(*run), runs))(runs)
for name, row in zip(("attention", "uniform average"), np.asarray(accuracy).reshape(2, 3), strict=True):
    print(f"recall, {name}: {row.mean():.3f} ± {row.std(ddof=1):.3f} over 3 seeds")
    numbers[f"recall accuracy, {name}"] = row.mean()

# %% [markdown]
# ## The figure
# Left: six questions about the same six pairs; the row says what is asked, the column what is read. Right: what the division keeps alive.

# %%
(letters, digits, _), _ = sample(jax.random.key(9), 1)
best = jax.tree.map(lambda leaf: leaf[0], trained)
_, weights = answer(best, letters.repeat(PAIRS, 0), digits.repeat(PAIRS, 0), letters[0], 1.0)
numbers["attention: smallest weight on the right pair"] = jnp.diag(weights).min()
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
figure.colorbar(left.imshow(weights, cmap="viridis", vmin=0, vmax=1), ax=left)
names = ["abcdefghijkl"[letter] for letter in letters[0]]
left.set_xticks(range(PAIRS), [f"{name} {digit}" for name, digit in zip(names, digits[0], strict=True)])
left.set_yticks(range(PAIRS), [f"{name} ?" for name in names])
left.set(xlabel="pair that is read", ylabel="letter that is asked for", title="Attention weights after training")
for row, name in enumerate(("divided by sqrt(d)", "not divided")):
    right.errorbar(SIZES, passing[row].mean(1), passing[row].std(1, ddof=1), marker="o", capsize=3, label=name)
right.set(
    xlabel="d", ylabel="trace of the softmax's derivative", title="32 random keys, 5 seeds", xscale="log", ylim=(0, 1)
)
right.set_xticks(SIZES, SIZES)
right.legend()
figure.savefig(figure_path("06", "attention_map_and_scale.png"), dpi=120)
report("06", numbers)

# %% [markdown]
# ## What this toy does not show
# - That attention weights explain a model: with one head, one layer and this task they do; with many layers they need not.
# - The cost, which grows with n². Nor that training fails without sqrt(d): only random scores were measured, and training can shrink them.
#
# ## Exercises: `minillm lessons check 06`, with `--hints` for help
# 1. `scaled_attention(query, key, value, mask)` · 20 minutes, easy · one head, any mask.
# 2. `rotate_pairs(x, positions, base)` · 25 minutes, medium · rotary positions from their definition.
#
# ## Recap
# Attention is a weighted average whose weights are computed from the tokens. Divide by sqrt(d), mask before the softmax, softmax along the keys. It
# knows no order: positions bring it in. A derivative that is exactly zero proves a mask.
# - **Glossary:** attention 注意力 · query, key, value 查询、键、值 · causal mask 因果掩码 · padding 填充 · multi-head 多头 ·
#   saturation 饱和 · permutation equivariance 置换等变性 · rotary positions 旋转位置编码
# - **Common errors:** mask after the softmax · softmax along the queries · sqrt of the model's width, not the head's · True means "hidden" in one
#   library and "visible" in another (here: visible) · -infinity in a row that sees nothing, which gives NaN.
# - **Next:** lesson 07, the Transformer: this layer, a feed-forward network and residual sums, stacked into encoder and decoder.
