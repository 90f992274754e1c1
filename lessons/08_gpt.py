# %% [markdown]
# # 08 GPT: autoregressive pretraining
#
# **Sections:** 1.2.1, 3.2.1, 3.3.1, 3.4.1, 3.4.2, 3.6.1, 3.7.3, 5.3.2.1
#
# **You will be able to:** derive the causal objective and its sums, read `models/gpt.py`, write its forward pass, pretrain and judge a GPT, generate.
#
# **Prerequisites:** 02 (counting), 03 (gradients), 06 (attention). **Time:** 50 s on two cores; an hour of reading.
#
# **Expected:** a mean of means is 17.6 % wrong on the toy. The small GPT has 134,912 parameters, GPT-2 small 124,439,808. An untrained GPT's loss is
# near ln(512) = 6.24. After 300 steps on a small corpus (held out, nats per token): unigram 4.6, one target per window 4.3, GPT-2's settings 3.4,
# modern settings 3.2, bigram 3.2, 5-gram 2.3: a GPT so young is near the bigram and well behind the 5-gram.

# %% [markdown]
# ## The question, and the chain rule
# Lesson 02 predicted the next token from a table of counts; lesson 06 gave every position a view of all before it. GPT puts them together. Where does
# its training signal come from, when nobody labelled anything? And how much of it does a training step use?
#
# For tokens $x_1 \dots x_n$ after a fixed beginning $x_0$ (bos), without any assumption,
#
# $$p(x_1, \dots, x_n \mid x_0) = \prod_{i=1}^{n} p(x_i \mid x_0, \dots, x_{i-1}), \qquad
#   L = \frac{\sum_i w_i \, \bigl(-\log p(x_i \mid x_0, \dots, x_{i-1})\bigr)}{\sum_i w_i}$$
#
# The weight $w_i$ is 1 for a real target and 0 for padding, so the denominator counts *predicted tokens*. Two kind corrections: 3.4.1 puts $x_1 \dots
# x_n$ on both sides of the bar (only $x_0$ belongs there, else the probability is 1); 3.4.2's N counts tokens, not examples. *Autoregressive* (1.2.1,
# 3.2.1) means just this: each token is predicted from those before it, and the prediction becomes input.
#
# By hand: p(a | bos) = 1/2, p(b | bos a) = 1/4, p(eos | bos a b) = 1/2. The text has probability 1/16, so the sum is ln 16 = 2.77 nats over 3
# targets: 0.92 nats per token.
# ## Why sums and not means
# A batch too large for memory is cut into micro-batches. The first has 4 real targets with losses that sum to 8 (mean 2), the second 12 with a sum of
# 60 (mean 5). The batch's loss is 68 / 16 = 4.25. The mean of the two means is 3.5: padding decides how much a token counts. Hence an objective
# returns named *sums and weights*; weights come from the data alone, are added first, and then every part is divided by the total (`accumulate` in
# `training/step.py`; lesson 03 measured what it saves).

# %%
import jax
import jax.numpy as jnp
import numpy as np

from minillm.objectives.causal import causal, token_losses
from minillm.objectives.contract import Sums, total_loss

rows = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.25, 0.25, 0.5]]))  # [targets, vocabulary a b eos]
assert np.isclose(token_losses(rows, jnp.array([0, 1, 2]))[0].sum(), np.log(16.0))
short, long = (Sums({"loss": loss}, {"loss": weight}, {}) for loss, weight in ((8.0, 4.0), (60.0, 12.0)))
exact = sum(float(total_loss(part, {"loss": 4.0 + 12.0}, {})) for part in (short, long))
mean_of_means = sum(float(total_loss(part, part.weights, {})) for part in (short, long)) / 2
assert exact == 4.25

# %% [markdown]
# ## The model is one page: `minillm/models/gpt.py`
# Open it beside this lesson and read downwards. `Config`: the settings. `param_specs`: every parameter once. `embed`: token + position, [batch,
# length] -> [batch, length, width]. `block`: x + attention(norm(x)), then x + feedforward(norm(x)). `apply`: embed, blocks, final norm. `logits`: ->
# [batch, length, vocabulary], through the transposed embedding table when `tied`. GPT-2 (Radford et al. 2019: "Language Models are Unsupervised
# Multitask Learners"; 3.7.3 gives this title to GPT-3's paper, "Language Models are Few-Shot Learners") and today's Llama-like models are two configs
# of this page.

# %%
from minillm import params
from minillm.models import gpt
from minillm.models.contract import Output, bind

SIZE = {"vocabulary": 512, "context": 32, "layers": 2, "width": 64, "heads": 4}
CLASSIC = gpt.Config(**SIZE)
LLAMA = {"norm": "rms", "position": "rotary", "activation": "silu", "gated": True, "bias": False}
MODERN = gpt.Config(**SIZE, **LLAMA, hidden=176)  # a gated network has 3 kernels: 3 * 176 is about 2 * 256
for path, spec in gpt.param_specs(CLASSIC).items():
    print(f"{path:38} {spec.shape!s:14} {spec.init:7} {spec.size:6}")
# By hand: two tables (the head is the first one again), 12 width^2 + 13 width per layer, the final norm.
SMALL = gpt.Config(vocabulary=50257, context=1024, layers=12, width=768, heads=12)  # only counted, never allocated
sizes = [params.count(gpt.param_specs(config)) for config in (CLASSIC, MODERN, SMALL)]
for c, size in ((CLASSIC, sizes[0]), (SMALL, sizes[2])):
    layer = (4 + 2 * 4) * c.width**2 + (4 + 5 + 2 * 2) * c.width  # attention and feed-forward, kernels; biases, norms
    assert size == (c.vocabulary + c.context) * c.width + c.layers * layer + 2 * c.width

# %% [markdown]
# ## The naive forward pass: one text, one layer, a loop over heads
# **Teacher forcing.** Row t of its output is p(next | the first t + 1 tokens): the same row as if the text ended there. One pass over `length` tokens
# is therefore `length` predictions, each conditioned on the *true* tokens before it. **Packing** follows from the mask too: documents side by side in
# a row, with `segments` and their own `positions`, come out as if each were alone.


# %%
def naive_gpt(p: dict, tokens, heads: int):
    """tokens [length] -> logits [length, vocabulary]; one layer, GPT-2's settings."""
    standard = lambda x: (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    norm = lambda p, x: standard(x) * p["scale"] + p["bias"]
    line = lambda p, x: x @ p["kernel"] + p["bias"]
    gelu = lambda x: 0.5 * x * (1 + jnp.tanh((2 / jnp.pi) ** 0.5 * (x + 0.044715 * x**3)))
    layer = jax.tree.map(lambda leaf: leaf[0], p["blocks"])  # stacked on a leading axis
    x = p["embedding"]["table"][tokens] + p["position"]["table"][: len(tokens)]  # [length, width]
    y = norm(layer["attention_norm"], x)
    query, key, value = (line(layer["attention"][name], y) for name in ("query", "key", "value"))
    attended, size = [], x.shape[1] // heads
    for start in range(0, x.shape[1], size):
        q, k, v = (z[:, start : start + size] for z in (query, key, value))
        scores = jnp.where(jnp.tri(len(tokens), dtype=bool), q @ k.T / size**0.5, -jnp.inf)  # no look ahead
        attended.append(jax.nn.softmax(scores) @ v)
    x = x + line(layer["attention"]["output"], jnp.concatenate(attended, axis=1))
    y = norm(layer["feedforward_norm"], x)
    x = x + line(layer["feedforward"]["down"], gelu(line(layer["feedforward"]["up"], y)))
    return norm(p["final_norm"], x) @ p["embedding"]["table"].T


one_layer = gpt.Config(**SIZE | {"layers": 1})
noisy = lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(1), leaf.shape)  # or all biases would be zero
weights = jax.tree.map(noisy, params.init_params(gpt.param_specs(one_layer), jax.random.key(8)))
text = jax.random.randint(jax.random.key(2), (1, 32), 0, 512)
library = gpt.logits(weights, gpt.apply(weights, {"tokens": text}, one_layer).hidden)
assert np.allclose(naive_gpt(weights, text[0], one_layer.heads), library[0], atol=1e-4)
assert np.allclose(naive_gpt(weights, text[0, :8], one_layer.heads)[-1], library[0, 7], atol=1e-4)  # cut after 8 tokens
places = jnp.arange(32)[None]
packed = {"tokens": text, "segments": 1 + places // 16, "positions": places % 16}  # two documents of 16 tokens
alone = gpt.apply(weights, {"tokens": text.reshape(2, 16)}, one_layer).hidden  # [2, 16, width]
assert np.allclose(gpt.apply(weights, packed, one_layer).hidden[0], alone.reshape(32, -1), atol=1e-4)

# %% [markdown]
# ## Config -> data -> model -> objective -> step
# Pretraining begins with **random** weights (5.3.2.1 begins with a model's weights: that is continued pretraining). The data: Python's manual, less
# than one reading of it in the 300 steps below. Everyone, n-grams too, is judged on the same 900 or so tokens of held-out topics, every 24th one that
# has 32 tokens before it in its document.
# ## Predict before you run
# 1. What is the loss before the first step? (512 tokens, and nothing known: a uniform guess.)
# 2. Document 3's program (5.2) cuts windows and trains **one** target per window, the token after it, an honest way to begin. Trained on the 32nd
#    target alone, the same network skips the other 31 outputs, which saves a quarter of the matrix products (2 · 12 · 64² of 2 · 12 · 64² + 512 · 64
#    stay), so it gets a third more steps. It is then judged on exactly its own task. Does it win? By how much?
# 3. After 300 steps of 512 tokens: is the GPT better than a unigram? Than a bigram? Than Kneser-Ney 5-grams of the whole text?
#
# The learning rates came from a small sweep; between 3e-3 and 1.2e-2 the one-target run's result moves by 0.05.

# %%
from matplotlib import pyplot as plt

from minillm.course.record import figure_path, report
from minillm.data import batches, clean, corpora, tokenizer
from minillm.evaluation import ngram
from minillm.inference import generate as generation
from minillm.report.plot import COLOURS
from minillm.training.optimizer import OptimizerConfig, make_optimizer
from minillm.training.step import init_state, make_gradient, make_train_step
from minillm.tuning.freeze import full

LENGTH, BATCH, STEPS, SEEDS = 32, 16, 300, (0, 1, 2)
TOPICS = ("typesseq", "string-methods", "objects", "import", "with", "try", "imaginary")  # held out
documents, _ = clean.clean(corpora.read("python-docs"), drop_repeated_lines=True)
texts = [[d.text for d in documents if (d.name in TOPICS) == held] for held in (False, True)]
tokenizer.train(texts[0], 512, "bpe", model_file=figure_path("08", "tokenizer.model"))
pieces = tokenizer.load(figure_path("08", "tokenizer.model"))
encode = lambda part: [np.array([pieces.bos, *ids, pieces.eos], np.int32) for ids in pieces.encode_many(part)]
train, held_out = map(encode, texts)  # every held-out topic is longer than a window
dataset = batches.make_dataset(train, LENGTH)
probes = np.concatenate([np.lib.stride_tricks.sliding_window_view(ids, LENGTH + 1)[::24] for ids in held_out])
probes = {"tokens": probes[:, :-1], "targets": probes[:, -1:], "weights": np.ones((len(probes), 1), np.float32)}
baselines = {}
for order in (1, 2, 3, 5):
    counts = ngram.fit(train, order, pieces.vocabulary)
    scores = [ngram.log_probabilities(counts, ids)[LENGTH - 1 :: 24] for ids in held_out]  # the probes' targets exactly
    baselines["unigram" if order == 1 else f"{order}-gram"] = -float(np.concatenate(scores).mean())


def judge_last(model, targets: int):
    """The same network, asked for the last `targets` predictions of a window only."""
    return model._replace(apply=lambda p, batch, key=None: Output(model.apply(p, batch, key=key).hidden[:, -targets:]))


def pretrain(config: gpt.Config, steps: int, rate: float, targets: int = LENGTH):
    """Trains one model per seed. Returns held-out losses [seeds, 5], after each quarter, and the last parameters."""
    specs, model, curves = gpt.param_specs(config), bind(gpt, config), []
    optimizer = make_optimizer(OptimizerConfig(learning_rate=rate, warmup_steps=20), steps, params.decay_mask(specs))
    gradient = make_gradient(causal, judge_last(model, targets), full(), {})
    train_step = jax.jit(make_train_step(gradient, optimizer, full(), {}), donate_argnums=0)
    evaluate = jax.jit(lambda p: causal(judge_last(model, 1), p, probes).metrics["nll"][0] / len(probes["tokens"]))
    for key in map(jax.random.key, SEEDS):
        state, curve = init_state(params.init_params(specs, key), {}, optimizer), []
        for step in range(steps):
            if 4 * step % steps == 0:
                curve.append(evaluate(state.trainable))
            batch = batches.batch_at(dataset, len(curves), step, BATCH)  # a pure function of (seed, step)
            batch |= {name: batch[name][:, -targets:] for name in ("targets", "weights")}
            state, _ = train_step(state, {}, batch, key)
        curves.append([*curve, evaluate(state.trainable)])
    return np.array(curves), state.trainable


modern, trained = pretrain(MODERN, STEPS, 4e-3)
classic, _ = pretrain(CLASSIC, STEPS, 4e-3)
wasteful, _ = pretrain(MODERN, STEPS * 4 // 3, 3e-3, targets=1)
curves = {"modern settings": modern, "GPT-2's settings": classic, "modern, one target per window": wasteful}
for name, curve in curves.items():
    print(f"{name:30} start {curve[:, 0].mean():.2f}, end {curve[:, -1].mean():.2f} ± {curve[:, -1].std(ddof=1):.2f}")
behind = wasteful[:, -1] - modern[:, -1]  # seed by seed
assert behind.min() > 0.5
figure, axes = plt.subplots(figsize=(9, 5), dpi=120, layout="constrained")
for (name, curve), colour, mark in zip(curves.items(), COLOURS, "os^", strict=False):
    axes.plot(range(0, 101, 25), curve.T, mark + "-", color=colour, markersize=4, label=[name, None, None])
for name, loss in {"uniform": np.log(512), **baselines}.items():
    axes.plot([0, 100], [loss, loss], color="grey", linestyle="--", linewidth=1)
    axes.text(101, loss, f"{name} {loss:.2f}", va="center", color="dimgrey")
axes.set(xlabel="share of the training compute (%)", ylabel="held-out loss (nats per token)", xlim=(-2, 117))
axes.legend(frameon=False, loc="upper right", bbox_to_anchor=(0.83, 0.91))
figure.savefig(figure_path("08", "pretraining.png"))

# %% [markdown]
# **What to read from the figure.** One line per seed. All start near ln 512 (a little below: a tied head begins by repeating its input, and the text
# has runs of spaces). One target per window hardly learns more than how frequent tokens are, at the same cost: a window of 32 holds 32 lessons. With
# all of them the GPT comes to the bigram, and stays well above 3- and 5-grams, which counted the whole text. `configs/quickstart.toml` trains longer.
# ## Generation: the predictions become input (3.6.1)
# Greedy takes the most likely token; temperature T divides the logits; top-k keeps the k best; top-p (the nucleus) the smallest set of best tokens
# whose probabilities sum to at least p (the token that crosses p belongs to it). Without a cache each new token pays for the whole prefix again; the
# **KV cache** keeps keys and values, so that a step processes one token. It must change nothing, and one compilation must serve every setting.

# %%
prompt = [pieces.bos, *pieces.encode("The ")]
settings = {"tokens": 24, "key": jax.random.key(0)}
draw = lambda s: generation.generate(gpt, MODERN, trained, [prompt], sampling=generation.Sampling(*s), **settings)[0]
before = generation._generate._cache_size()
for name, sampling in {"greedy": (0.0,), "T = 0.8": (0.8,), "top-k 20": (0.8, 20), "top-p 0.9": (0.8, 0, 0.9)}.items():
    print(f"{name:10} {pieces.decode(prompt + draw(sampling))!r}")
assert generation._generate._cache_size() == before + 1
ids, whole_text = list(prompt), jax.jit(lambda x: gpt.logits(trained, gpt.apply(trained, {"tokens": x}, MODERN).hidden))
for _ in range(24):  # without a cache, everything again; padding on the right is never looked at
    padded = np.pad(ids, (0, LENGTH - len(ids)))[None]
    ids.append(int(whole_text(padded)[0, len(ids) - 1].argmax()))
assert ids == prompt + draw((0.0,))
report("08", {
    "mean of means, relative error": mean_of_means / exact - 1, "initial loss": classic[:, 0].mean(),
    "parameters, here": sizes[0], "parameters, modern": sizes[1], "parameters, GPT-2 small": sizes[2],
    **{f"held-out loss, {name}": curve[:, -1].mean() for name, curve in curves.items()},
    **{f"held-out loss, {name}": loss for name, loss in baselines.items()},
    "one target per window costs": behind.mean(),
})  # fmt: skip

# %% [markdown]
# ## What this toy does not show
# That n-grams beat GPTs, or modern settings GPT-2's: one small corpus, one size, 300 steps, three seeds, three rates. Large models on much text are
# where this objective pays, and nothing here is large. The probes always have 32 tokens before them, which suits one target per window; the factor
# depends on length and budget. And teacher forcing never shows a model its own errors; what that does in long texts is lesson 28's.
# ## Exercises: `minillm lessons check 08`, with `--hints` when stuck
# 1. `shift_targets(tokens, lengths)`: inputs, targets and weights of a padded batch (10 minutes, easy).
# 2. `nucleus(probabilities, p)`: the tokens that top-p keeps, renormalised (20 minutes, medium).
# ## Recap
# The chain rule turns text into labels. Every position of every window is a target. Objectives return sums, so that padding and micro-batches change
# nothing. A GPT is embed, blocks, logits; it begins at ln(vocabulary). Baselines of the same tokens say what a loss is worth.
#
# **Glossary:** autoregressive 自回归 · pretraining 预训练 · teacher forcing 教师强制 · causal mask 因果掩码 · logits 逻辑值 · weight tying 权重共享 ·
# temperature 温度 · nucleus (top-p) sampling 核采样 · KV cache 键值缓存 · packing 序列打包 · baseline 基线
# **Common errors:** targets not shifted (the loss falls to 0: the model copies); shifted twice; padding counted; mean of means; positions that run on
# in packed documents; perplexities of different tokenizers compared; one target per window.
# **Next:** 09 BERT, which hides tokens and looks both ways. 30 asks when a difference like those above is real.
