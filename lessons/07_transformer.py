# %% [markdown]
# # Lesson 07 · The Transformer: block, encoder, decoder, cross-attention
#
# **Sections:** 2.7.3, 3.3, 3.3.1, 5.7.3
# - **You will be able to:** write an encoder and a decoder block from their parts · say who may read from whom in each of the three attentions, and
#   prove it by a gradient · count a Transformer's parameters · train one that turns strings around without a mistake, and see how it does it.
# - **Prerequisites:** lesson 06 (attention, masks, positions), lesson 03 (Adam). **Time:** an hour; the script, 40 s on two cores.
# - **Expected:** on paper: (1, 3) is normalised to (-1, 1) · the paper's base model: 63 million parameters with 37,000 tokens · reversing held-out
#   strings: all of them exactly; without positions in the source about 25 %; without the source below 1 %; longer than trained: 5 %.
#
# ## The question
# A model such as GPT continues a text. Translation maps one text to *another*, of another length and order: source to target. Recurrent networks
# pressed the source into one vector and unrolled it again (Sutskever et al. 2014). Vaswani et al. (2017) kept one vector per source token and let
# every target token look at all of them. 2.7.3 says that their paper opened the age of pretraining: kindly, it trained translation from scratch;
# GPT and BERT (2018) pretrained its two halves. (Also 5.7.3: GPT-3's title is "Language Models are Few-Shot Learners".) 3.3.1 names the two parts
# that its models share, self-attention and residual connections. How do they make a block, and blocks a model?
#
# ## The maths, with shapes
# A block is a list of *sublayers*, each [length, width] -> [length, width], and around each a residual sum and a norm:
#
#     x = norm(x + sublayer(x))            post-norm, the paper                x = x + sublayer(norm(x))       pre-norm, GPT-2 and later
#     norm(x) = (x - mean) / sqrt(variance + ε) * scale + bias                 over the width, one token at a time
#     feedforward(x) = max(0, x W1 + b1) W2 + b2                               W1 [width, hidden], W2 [hidden, width], one token at a time
#
#     encoder block:   self-attention, feed-forward             every source token reads every source token; no mask but padding
#     decoder block:   self-attention, cross-attention, feed-forward
#                      causal: token t reads 0 ... t            queries from the target, keys and values from the encoder's output
#
# A token enters as table[token] · sqrt(width) + position and leaves as logits = hidden table^T. On paper: x = (1, 3) has mean 2 and variance 1, so
# norm(x) = (-1, 1). If all sublayers return 0, a pre-norm block hands on (1, 3) and a post-norm block (-1, 1): only pre-norm has a free path through.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from minillm import params
from minillm.course.record import figure_path, report
from minillm.data.synthetic import BEGIN, END, FIRST, vocabulary_size
from minillm.data.transduction import transduction_batch
from minillm.inference.generate import Sampling, generate
from minillm.models import transformer
from minillm.models.contract import bind
from minillm.nn.position import sinusoidal_positions
from minillm.objectives.sequence_to_sequence import sequence_to_sequence
from minillm.report.plot import COLOURS, smooth
from minillm.training.optimizer import OptimizerConfig, make_optimizer
from minillm.training.step import init_state, make_gradient, make_train_step
from minillm.tuning import full

scope, numbers = transformer.Scope(jnp.ones((1, 1), bool), ()), {}
for placement in ("post", "pre"):
    config = transformer.Config(vocabulary=9, width=2, heads=1, layers=1, placement=placement)
    blank = {path: jnp.zeros(row.shape) + (row.init == "ones") for path, row in transformer.param_specs(config).items()}
    first = jax.tree.map(lambda leaf: leaf[0], params.unflatten(blank)["encoder"]["blocks"])
    numbers[f"second entry after a blank {placement}-norm block"] = transformer.encoder_block(
        first, jnp.array([[[1.0, 3.0]]]), config, scope
    )[0][0, 0, 1]
d, h, V, BASE = 512, 2048, 37000, transformer.Config(vocabulary=37000)  # the base model of table 3
attention, feedforward, norm = 4 * (d * d + d), 2 * d * h + h + d, 2 * d
encoder, decoder = attention + feedforward + 2 * norm, 2 * attention + feedforward + 3 * norm
numbers["parameters of the base model"] = params.count(transformer.param_specs(BASE))
assert numbers["parameters of the base model"] == V * d + 6 * encoder + 6 * decoder


# %% [markdown]
# ## The naive version: one encoder block, one decoder block
# In NumPy, one string, a loop over heads. Note that the three attentions are one function: what differs is who asks, who is read, and the mask.


# %%
def naive_transformer(p, source, tokens, heads):
    """source [keys], tokens [length] -> logits [length, vocabulary]; post-norm, one layer each."""
    width, table = p["embedding"]["table"].shape[1], p["embedding"]["table"]
    line = lambda p, x: x @ p["kernel"] + p["bias"]
    standard = lambda x: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    norm = lambda p, x: standard(x) * p["scale"] + p["bias"]
    position = lambda n: np.array(sinusoidal_positions(jnp.arange(n), width))
    embed = lambda ids: table[ids] * np.sqrt(width) + position(len(ids))

    def attend(p, asks, read, mask):
        """asks [n, width], read [m, width], mask [n, m] -> [n, width]."""
        query, key, value = line(p["query"], asks), line(p["key"], read), line(p["value"], read)
        heads_apart = [np.split(z, heads, axis=-1) for z in (query, key, value)]
        found = []
        for q, k, v in zip(*heads_apart, strict=True):
            scores = np.where(mask, np.exp(q @ k.T / np.sqrt(q.shape[1])), 0.0)
            found.append(scores / scores.sum(-1, keepdims=True) @ v)
        return line(p["output"], np.concatenate(found, axis=-1))

    think = lambda p, x: line(p["down"], np.maximum(line(p["up"], x), 0.0))
    left, right = (jax.tree.map(lambda leaf: leaf[0], p[side]["blocks"]) for side in ("encoder", "decoder"))
    x, y, causal = embed(source), embed(tokens), np.tri(len(tokens), dtype=bool)
    x = norm(left["self_attention_norm"], x + attend(left["self_attention"], x, x, True))
    x = norm(left["feedforward_norm"], x + think(left["feedforward"], x))
    y = norm(right["self_attention_norm"], y + attend(right["self_attention"], y, y, causal))
    y = norm(right["cross_attention_norm"], y + attend(right["cross_attention"], y, x, True))
    y = norm(right["feedforward_norm"], y + think(right["feedforward"], y))
    return y @ table.T


SYMBOLS, LENGTH, WIDTH = 8, 8, 32
CONFIG = transformer.Config(vocabulary_size(SYMBOLS), context=16, layers=1, width=WIDTH, heads=2, hidden=64)
specs = transformer.param_specs(CONFIG)
noisy = lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(1), leaf.shape)  # or all biases would be zero
weights = jax.tree.map(noisy, params.init_params(specs, jax.random.key(7)))
string = jax.random.randint(jax.random.key(2), (2, 1, 7), 0, CONFIG.vocabulary)
batch = {"source": string[0], "tokens": string[1, :, :5]}  # 7 source tokens, 5 target tokens
hidden = jax.jit(lambda embeddings: transformer.apply(weights, batch, CONFIG, embeddings=embeddings).hidden)
embedded = transformer.embed(weights, batch, CONFIG)
naive = naive_transformer(jax.tree.map(np.asarray, weights), string[0, 0], string[1, 0, :5], CONFIG.heads)
assert np.allclose(naive, transformer.logits(weights, hidden(embedded))[0], atol=1e-4)
influence = jax.tree.map(
    lambda leaf: np.abs(leaf[0, :, :, 0]).sum((1, 3)), jax.jit(jax.jacobian(hidden))(embedded)
)  # [target, input]
assert (influence["source"] > 0).all()  # every target position depends on the whole source
assert (influence["tokens"][np.triu_indices(5, 1)] == 0).all() and (np.tril(influence["tokens"]).sum(1) > 0).all()  # noqa: PT018

# %% [markdown]
# ## A small real experiment: turn a string around
# `c a f` becomes `f a c`: no word of the answer stands where it stood, so the model must learn *where* to look. Strings of 1 to 8 of 8 symbols; the
# held-out ones never occur in training, and a string counts only if every symbol and the end are right. The baselines are the same network (a) with
# the positions taken away from the source, which leaves a bag of symbols, and (b) with the source's symbols replaced by padding.
# **Predict before you run.** Which share of strings will (a) get right? And what can (b) still know? Can the model reverse strings of 9 to 12?

# %%
STEPS, BATCH, SEEDS = 1000, 32, 3
train_batches = [transduction_batch(0, step, BATCH, LENGTH, SYMBOLS) for step in range(STEPS)]
train_batches = jax.tree.map(lambda *leaves: jnp.stack(leaves), *train_batches)
held_out = transduction_batch(0, 0, 512, LENGTH, SYMBOLS, split="validation")
longer = transduction_batch(0, 1, 512, 12, SYMBOLS, split="validation")
longer = {name: leaf[longer["weights"].sum(1) > LENGTH + 1] for name, leaf in longer.items()}
WAYS = ("the Transformer", "no positions in the source", "no source")


def restricted(way):
    """The model, with the source as that way leaves it."""

    def apply(weights, batch, key=None, capture=()):
        if way == "no source":
            batch = batch | {"source": jnp.zeros_like(batch["source"])}  # its length is still seen
        embeddings = transformer.embed(weights, batch, CONFIG)
        if way == "no positions in the source":
            embeddings["source"] -= sinusoidal_positions(jnp.arange(batch["source"].shape[1]), WIDTH)
        return transformer.apply(weights, batch, CONFIG, embeddings=embeddings, capture=capture)

    return bind(transformer, CONFIG)._replace(apply=apply)


def train(way, seed):
    """Trains once -> (weights, share of exact strings per step, on held-out strings and on longer ones)."""
    model, key = restricted(way), jax.random.key(seed)
    settings = OptimizerConfig(learning_rate=1e-2, warmup_steps=50, weight_decay=0.0, final_ratio=0.0)
    optimizer = make_optimizer(settings, STEPS, params.decay_mask(specs))
    step = make_train_step(make_gradient(sequence_to_sequence, model, full(), {}), optimizer, full(), {})
    start = init_state(params.init_params(specs, key), {}, optimizer)
    state, metrics = jax.lax.scan(lambda state, batch: step(state, {}, batch, key), start, train_batches)
    exact = lambda batch: jnp.divide(*sequence_to_sequence(model, state.trainable, batch).metrics["exact"])
    return state.trainable, metrics["exact"], exact(held_out), exact(longer)


curves = {}
for way in WAYS:
    jax.clear_caches()  # compiled programs take memory, too
    runs = jax.jit(jax.vmap(lambda seed, way=way: train(way, seed)))(jnp.arange(SEEDS))
    curves[way], exact = np.asarray(runs[1]), runs[2]
    trained = jax.tree.map(lambda leaf: leaf[0], runs[0]) if way == WAYS[0] else trained
    print(f"{way:27} exact: {exact.mean():.3f} ± {exact.std(ddof=1):.3f}; longer strings: {runs[3].mean():.3f}")
    numbers[f"exact, {way}"] = exact.mean()
    if way == WAYS[0]:
        numbers["exact, worst seed"], numbers["exact, 9 to 12 symbols"] = exact.min(), runs[3].mean()

# %% [markdown]
# ## Writing without the answer
# Until here the decoder was shown the true answer so far (teacher forcing). To write, it reads the source once and its own symbols one by one
# (`generate` keeps keys and values). Greedy writing is right exactly where all of the teacher-forced choices are.

# %%
rows = [row[mask].tolist() for row, mask in zip(held_out["source"], held_out["source_mask"], strict=True)]
written = generate(
    transformer,
    CONFIG,
    trained,
    [[BEGIN]] * len(rows),
    LENGTH + 1,
    sources=rows,
    stop=(END,),
    key=jax.random.key(0),
    sampling=Sampling(0.0),
)
right = np.mean([answer == row[-2::-1] for answer, row in zip(written, rows, strict=True)])
numbers["exact, written greedily"] = right
spell = lambda ids: "".join("abcdefgh"[token - FIRST] for token in ids)
print("; ".join(f"{spell(row[:-1])} -> {spell(answer)}" for row, answer in zip(rows[:4], written[:4], strict=True)))

# %% [markdown]
# ## The figure
# Left: cross-attention for one held-out string, mean of the heads; a row writes, a column is read. Right: the first seed of each way.

# %%
place = int(np.flatnonzero(held_out["weights"].sum(1) == LENGTH + 1)[0])
one = {name: leaf[place : place + 1] for name, leaf in held_out.items()}
found = transformer.apply(trained, one, CONFIG, capture=("cross_attention",)).captured["cross_attention"]
weights = np.asarray(found[0, 0].mean(0))  # [target, source]
numbers["cross-attention on the mirrored place"] = np.mean([weights[t, LENGTH - 1 - t] for t in range(LENGTH)])
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
figure.colorbar(left.imshow(weights, vmin=0, vmax=1), ax=left)
left.set_xticks(range(LENGTH + 1), [*spell(one["source"][0, :-1]), "end"])
left.set_yticks(range(LENGTH + 1), [*spell(one["targets"][0, :-1]), "end"])
left.set(xlabel="source token that is read", ylabel="token that is written", title="Cross-attention")
for (way, curve), colour in zip(curves.items(), COLOURS, strict=False):
    right.plot(smooth(curve[0]), color=colour, label=way)
right.set(xlabel="step", ylabel="exact strings (smoothed)", title="Training batches", ylim=(0, 1.02))
_ = right.legend()
figure.savefig(figure_path("07", "reverse.png"), dpi=120)
report("07", numbers)

# %% [markdown]
# ## What this toy does not show
# Translation: the answer is a permutation of the source, words have no meanings, 1,000 steps suffice. Nor which norm placement is better: the
# reason to prefer pre-norm is depth, and this is one layer. It learned positions, not the idea: of longer strings one in twenty is right.
# ## Exercises: `minillm lessons check 07`, with `--hints` for help
# 1. `post_norm_block(x, attention, feedforward, epsilon)` · 15 minutes, easy · sublayers, sums and norms in the right order.
# 2. `cross_attention(target, source, source_mask, query, key, value)` · 20 minutes, medium · who asks, who is read.
# 3. `decoder_batch(answers, begin, end)` · 15 minutes, easy · what the decoder reads, what it should write, what counts.
# ## Recap
# A block is sublayers with residual sums and norms. Encoder: everybody reads everybody. Decoder: the past of the target, then the source. Attention
# is one function, used three times; nothing else moves information between tokens. BERT keeps the left half, GPT the right one, T5 both.
# **Glossary:** encoder 编码器 · decoder 解码器 · cross-attention 交叉注意力 · residual connection 残差连接 · layer normalisation 层归一化 ·
# feed-forward network 前馈网络 · source 源序列 · target 目标序列 · teacher forcing 教师强制 · padding mask 填充掩码
# **Common errors:** keys from the target in cross-attention · the source's padding not masked · the decoder's input not shifted (it copies)
# · the norm over the tokens in place of the width · the residual sum left out · sqrt(width) forgotten at the embedding.
# **Next:** 08 GPT, the decoder without a source; 09 BERT, the encoder alone; 11 T5, both.
