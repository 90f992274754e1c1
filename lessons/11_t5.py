# %% [markdown]
# # 11 T5: span corruption, text to text
#
# **Sections:** 1.2.1, 1.7.3
#
# - **You will be able to:** cut spans and put them back, count what that saves, write T5's attention and its buckets of distances, pretrain a T5 on
#   spans beside a baseline, and train one model for two tasks that a word in the input tells apart.
# - **Prerequisites:** 06 (attention), 08 (GPT), 09 (BERT). **Time:** an hour and a half to read; the script takes about 55 s on two cores.
# - **Expected:** 512 tokens become a source of 462 and targets of 104. Spans of Python's manual after 600 steps, held out: 8.7 % of the cut tokens
#   recovered, the most frequent token 3.9 %, the left neighbour 15 %; 42 % with sentinels. Two tasks: 99 % exact if told which, 62 % if not.
#
# ## The question
# BERT understands but cannot write; GPT writes but looks one way only. And every task wants a head of its own: a class, a tag, a span, a sentence.
# Is there *one* model, one loss and one format for all of them? T5 (Raffel et al. 2020) says: every task is text in, text out. "translate English to
# German: ...", "summarize: ...", "cola sentence: ..." go in, and a German text, a summary, the word "acceptable" come out. An *encoder* reads the
# input and looks both ways, a *decoder* writes the answer from left to right and looks at the encoder's output (lesson 07's cross-attention). 1.2.1
# counts BERT, GPT-3 and T5 as autoregressive or autoencoding: T5 is both halves, put together. 1.7.3 lists its paper.
# ## Span corruption
# Pretraining must then be text to text as well. Cut out about 15 % of the tokens, in spans of 3 on average; leave a *sentinel* for each span, and
# let the decoder write what each sentinel stands for:
#
#     text     Thank you for inviting me to your party last week
#     source   Thank you <0> me to your party <1> week end
#     targets  <0> for inviting <1> last end
# Here `end` is the end token; the library's texts always close with a span.
#
# $$L = -\frac{1}{\sum_t w_t} \sum_t w_t \log p(y_t \mid y_0 \dots y_{t-1}, \text{source})$$
# with $y$ the targets: a causal loss (lesson 08) under a condition. By hand, 512 tokens: 0.15 * 512, rounded, or 77 are cut, in 77 / 3 or 26 spans.
# The source has 512 - 77 + 26 sentinels + 1 end = **462** tokens, the targets 77 + 26 + 1 = **104**. The decoder writes a fifth of the text, not all
# of it; BERT's masks would have kept all 512 places.

# %%
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt

from minillm import params
from minillm.course.record import figure_path, report
from minillm.data import batches, clean, corpora, spans, tokenizer
from minillm.data.synthetic import BEGIN, END, FIRST
from minillm.data.transduction import transduction_batch
from minillm.inference.generate import Sampling, generate
from minillm.models import t5
from minillm.models.contract import bind
from minillm.objectives.sequence_to_sequence import sequence_to_sequence
from minillm.objectives.span import span
from minillm.report.plot import COLOURS
from minillm.training.optimizer import OptimizerConfig, make_optimizer
from minillm.training.step import init_state, make_gradient, make_train_step, means
from minillm.tuning.freeze import full

lengths = spans.span_lengths(512, spans.Spans(sentinel=32099, end=1))  # T5's own ids
numbers = dict(zip(("source of 512 tokens", "targets of 512 tokens"), lengths, strict=True))
words = ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week"]
SPANS = spans.Spans(sentinel=99, end=1, sentinels=10, density=0.3, mean_length=2.0)
toy = spans.corrupt_spans({"tokens": np.arange(10, 10 + len(words))[None]}, 0, 0, SPANS)
name = lambda i: "end" if i == 1 else f"<{99 - i}>" if i > 50 else words[i - 10]
print("source ", *map(name, toy["source"][0]), "\ntargets", *map(name, toy["targets"][0]))
assert np.array_equal(spans.restore_spans(toy, SPANS)[0], np.arange(10, 20))  # nothing is lost

# %% [markdown]
# ## T5's attention, naively
# Two things differ from lesson 06. Positions are no vectors added to x: each head adds a learned number to the score, looked up by the *distance*
# from query to key. Distances share 32 buckets: the near ones have one each, the farther ones ever wider ones, and from 128 on all is equally far.
# And scores are not divided by sqrt(d): the query kernel starts that much smaller.


# %%
def naive_attention(p: dict, table, x, heads: int, bucket):
    """x [length, model] -> [length, model]; an encoder's self-attention. table [buckets, heads]."""
    size, output = p["query"]["kernel"].shape[1] // heads, []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        query, key, value = (x @ p[name]["kernel"][:, part] for name in ("query", "key", "value"))
        bias = np.array([[table[bucket(j - i), head] for j in range(len(x))] for i in range(len(x))])
        scores = query @ key.T + bias
        weights = np.exp(scores - scores.max(1, keepdims=True))
        output.append(weights / weights.sum(1, keepdims=True) @ value)
    return np.concatenate(output, axis=1) @ p["output"]["kernel"]


def naive_bucket(offset: int) -> int:
    """Key minus query -> bucket, for an encoder: 16 buckets backwards, 16 forwards, 8 of each exact."""
    away = abs(offset)
    found = away if away < 8 else min(8 + int(np.log(away / 8) / np.log(128 / 8) * 8), 15)
    return found + 16 * (offset > 0)


tiny = t5.Config(vocabulary=40, context=200, layers=1, width=16, heads=2)
weights = params.init_params(t5.param_specs(tiny), jax.random.key(0))["encoder"]
layer = jax.tree.map(lambda leaf: np.asarray(leaf[0]), weights["blocks"]["self_attention"])
x = jax.random.normal(jax.random.key(1), (1, 150, 16))
bias = t5.distance_bias(weights["distance"], jnp.arange(150)[None], 150, tiny, causal=False)
fast, _ = t5.attend(layer, x, t5.project_memory(layer, x, tiny), bias, True, tiny, None)
slow = naive_attention(layer, np.asarray(weights["distance"]["table"]), np.asarray(x[0]), 2, naive_bucket)
assert np.allclose(slow, fast[0], atol=1e-4)
numbers["bucket of 20 steps back"] = naive_bucket(-20)
numbers["distances that share the bucket of 100"] = sum(
    naive_bucket(-away) == naive_bucket(-100) for away in range(128)
)

# %% [markdown]
# ## Experiment 1: pretraining on Python's manual
# Rows of 32 tokens, 5 cut out in 2 spans: the source has 30, the targets 8. "Recovered" counts the 5 alone; the sentinels and the end that frame
# them are learned at once and would flatter. Baselines of the same targets: the most frequent token; and counting what followed the token before (a
# bigram, which sees the true left neighbour, as the decoder does).
# **Predict before you run.** After 600 steps of 64 rows: does the T5 recover more than the unigram? than the bigram? It sees both sides; the bigram
# has counted the whole text.

# %%
LENGTH, BATCH, STEPS, SEEDS = 32, 64, 600, (0, 1, 2)
TOPICS = ("typesseq", "string-methods", "objects", "import", "with", "try", "imaginary")  # held out
documents, _ = clean.clean(corpora.read("python-docs"), drop_repeated_lines=True)
texts = [[" ".join(d.text.split()) for d in documents if (d.name in TOPICS) == held] for held in (False, True)]
tokenizer.train(texts[0], 512, "bpe", model_file=figure_path("11", "tokenizer.model"))
pieces = tokenizer.load(figure_path("11", "tokenizer.model"))
VOCABULARY = pieces.vocabulary + 4  # four sentinels above the pieces
CUT = spans.Spans(sentinel=VOCABULARY - 1, end=pieces.eos, begin=pieces.pad, sentinels=4)
encode = lambda part: [np.array([pieces.bos, *ids, pieces.eos], np.int32) for ids in pieces.encode_many(part)]
train, held_out = (batches.make_dataset(encode(part), LENGTH) for part in texts)
text_at = lambda data, seed, step, rows: {"tokens": batches.batch_at(data, seed, step, rows)["tokens"]}
spans_at = lambda data, seed, step, rows: spans.corrupt_spans(text_at(data, seed, step, rows), seed, step, CUT)


def fit(objective, config, batch_at, probes, steps: int, rate: float, seed: int):
    """-> metrics on the probes at the start and after each eighth of the steps, and the parameters."""
    specs, model, key, curve = t5.param_specs(config), bind(t5, config), jax.random.key(seed), []
    settings = OptimizerConfig(learning_rate=rate, warmup_steps=30, weight_decay=0.0)
    optimizer = make_optimizer(settings, steps, params.decay_mask(specs))
    gradient = make_gradient(objective, model, full(), {})
    train_step = jax.jit(make_train_step(gradient, optimizer, full(), {}), donate_argnums=0)
    evaluate = jax.jit(lambda p: means(objective(model, p, probes)))
    state = init_state(params.init_params(specs, key), {}, optimizer)
    for step in range(steps):
        if 8 * step % steps == 0:
            curve.append(evaluate(state.trainable))
        state, _ = train_step(state, {}, batch_at(seed, step), key)
    return [*curve, evaluate(state.trainable)], state.trainable


CONFIG = t5.Config(vocabulary=VOCABULARY, context=LENGTH, layers=1, width=64, heads=4, tied=False)  # as version 1.1
probes = spans_at(held_out, 0, 0, 1000)
batch_at = lambda seed, step: spans_at(train, seed, step, BATCH)
runs = [fit(span, CONFIG, batch_at, probes, STEPS, 4e-3, seed) for seed in SEEDS]
pick = lambda runs, name: np.array([[point[name] for point in curve] for curve, _ in runs])  # [seeds, points]
recovered, flattered = pick(runs, "recovered"), pick(runs, "accuracy")
follows = np.zeros((VOCABULARY, VOCABULARY), np.int32)
np.add.at(follows, (train.tokens[:-1], train.tokens[1:]), 1)
right = {"unigram": [], "left neighbour": []}
for source, targets, removed in zip(probes["source"], probes["targets"], probes["removed"], strict=True):
    before = dict(zip(source[1:], source[:-1], strict=True))  # a sentinel -> what stands left of it
    for place in np.flatnonzero(removed):
        neighbour = before.get(targets[place - 1], targets[place - 1])
        right["unigram"].append(follows.sum(0).argmax() == targets[place])
        right["left neighbour"].append(follows[neighbour].argmax() == targets[place])
baselines = {name: np.mean(found) for name, found in right.items()}
numbers |= {f"recovered, {name}": value for name, value in baselines.items()}
numbers |= {"recovered, T5": recovered[:, -1].mean(), "accuracy over all targets, T5": flattered[:, -1].mean()}
assert recovered[:, -1].min() > 1.5 * baselines["unigram"]

# %% [markdown]
# ## Experiment 2: one model, two tasks
# Copy "b c a" or reverse it: the same strings, the same loss, the same weights. A first token says what to do: the miniature of "translate" and
# "summarize". Strings of 1 to 5 of six letters; those that are tested never occur in training. The control gets the same strings under one word for
# both tasks. **Predict before you run.** It cannot know what is asked. What share can it get exactly right at best? (Which strings are their own
# reverse?)

# %%
SYMBOLS, LONGEST = 6, 5
TASKS = {"copy": FIRST + SYMBOLS, "reverse": FIRST + SYMBOLS + 1}  # the ids of the two words


def tasks_at(seed: int, step: int, rows: int = 64, split: str = "train", told: bool = True) -> dict:
    """Half of the rows to copy, half to reverse, with the task's word before the string."""
    parts = []
    for task, word in TASKS.items():
        part = transduction_batch(seed, step, rows // 2, LONGEST, SYMBOLS, task, split)
        ahead = np.full((rows // 2, 1), word if told else TASKS["copy"], np.int32)
        source, mask = np.hstack([ahead, part["source"]]), np.hstack([ahead > 0, part["source_mask"]])
        parts.append(part | {"source": source, "source_mask": mask})
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts) | {"index": np.arange(rows, dtype=np.int32)}


SMALL = t5.Config(vocabulary=FIRST + SYMBOLS + 2, context=16, layers=1, width=32, heads=4, hidden=64)
exact = {}
for way, told in (("told", True), ("not told", False)):
    held = tasks_at(9, 0, 1000, "validation", told)
    batch_at = lambda seed, step, told=told: tasks_at(seed, step, told=told)
    both = [fit(sequence_to_sequence, SMALL, batch_at, held, 720, 4e-3, seed) for seed in SEEDS]
    exact[way] = pick(both, "exact")
    numbers[f"exact, {way}"] = exact[way][:, -1].mean()
    print(f"exact, {way:9}", exact[way][:, -1].round(3))
    solver = both[0][1] if told else solver
held = tasks_at(9, 0, 1000, "validation")
strings = [row[weight > 0].tolist() for row, weight in zip(held["targets"][:500], held["weights"][:500], strict=True)]
own_reverse = np.mean([string[:-1] == string[-2::-1] for string in strings])
numbers["at best when not told"] = own_reverse + (1 - own_reverse) / 2
asked = [[word, *string] for word in TASKS.values() for string in strings[:3]]
greedy = {"key": jax.random.key(0), "sampling": Sampling(0.0), "stop": (END,)}
answers = generate(t5, SMALL, solver, [[BEGIN]] * len(asked), LONGEST + 1, sources=asked, **greedy)
letters = lambda ids: "".join("abcdef"[i - FIRST] for i in ids if FIRST <= i < FIRST + SYMBOLS)
for question, answer in zip(asked, answers, strict=True):
    print([*TASKS][question[0] - TASKS["copy"]], letters(question), "->", letters(answer))
word = [FIRST + i for i in range(5)]
looks = []
for task, string in (("copy", word), ("reverse", word[::-1])):
    one = {"source": jnp.array([[TASKS[task], *word, END]]), "tokens": jnp.array([[BEGIN, *string]])}
    looks.append(t5.apply(solver, one, SMALL, capture=("cross_attention",)).captured["cross_attention"][0, 0].mean(0))
figure, axes = plt.subplots(1, 4, figsize=(16, 4), dpi=110, layout="constrained", width_ratios=(1.3, 1.3, 1, 1))
for panel, title, curves, marks in (
    (axes[0], "spans of Python's manual", {"T5": recovered}, baselines),
    (axes[1], "copy and reverse", exact, {"not told, at best": numbers["at best when not told"]}),
):
    for (way, curve), colour in zip(curves.items(), COLOURS, strict=False):
        panel.plot(np.linspace(0, 100, curve.shape[1]), curve.T, color=colour, label=[way, None, None])
    for way, value in marks.items():
        panel.axhline(value, color="grey", linestyle="--", linewidth=1)
        panel.text(0, value, way, color="dimgrey", va="bottom" if value < 0.1 else "top")
    panel.set(title=title, xlabel="share of the steps (%)", ylabel="right, held out", ylim=(0, None))
    panel.legend(frameon=False, loc="lower right")
for panel, task, look in zip(axes[2:], TASKS, looks, strict=True):
    panel.imshow(look, cmap="viridis", vmin=0, vmax=1)
    panel.set_xticks(range(7), [task, *"abcde", "end"])
    panel.set_yticks(range(6), [*("abcde" if task == "copy" else "edcba"), "end"])
    panel.set(title=f"{task}: where the decoder looks", xlabel="source", ylabel="token to be written")
figure.savefig(figure_path("11", "spans_and_tasks.png"))
report("11", numbers)

# %% [markdown]
# **What to read from the figure.** First panel: the young T5 recovers twice what always saying the most frequent token would, and is behind a table
# of neighbours, as BERT was (lesson 09). Its accuracy over *all* targets is 42 %, for 3 targets of 8 are sentinels and the end: say which one you
# quote. Second: told what to do, one model does both tasks nearly without fault, on strings that it never saw. Not told, it stays under the ceiling
# that arithmetic sets: a string that is its own reverse is right either way, any other one half of the time. Last two, one string, mean over heads:
# the word in front turns the cross-attention round, from one diagonal to the other. Attention is a view, not a proof (lesson 33).
# ## What this toy does not show
# That span corruption is better than masks or next tokens: nothing else was trained here (lesson 14 compares at one budget). That tasks help each
# other: copying and reversing only get along. One corpus, one size, three seeds.
# ## Exercises: `minillm lessons check 11`, with `--hints` when stuck
# 1. `corrupt(text, spans, sentinel, end)`: source and targets (20 minutes, medium).
# 2. `restore(source, targets, lowest, end)`: the text back, also from a model's attempt (20 minutes, medium).
# 3. `bucket(offset, size, furthest)`: T5's distances, for the decoder (20 minutes, medium).
# ## Recap
# Text in, text out: the task is a word in the input, the loss is always that of the next token. Pretraining cuts spans out and has them written, so
# that the decoder writes a fifth of the text. Positions are distances in buckets, added to the scores.
# **Glossary:** text to text 文本到文本 · span corruption 片段破坏 · sentinel 哨兵标记 · encoder-decoder 编码器-解码器 · cross-attention 交叉注意力 ·
# relative position 相对位置 · bucket 分桶 · task prefix 任务前缀 · multi-task learning 多任务学习
# **Common errors:** one sentinel per token; the same sentinel twice; no end token; targets not shifted for the decoder; sentinels counted as
# success; scores divided by sqrt(d) although the kernel already is; distances with the wrong sign; padding of the source that is attended to.
# **Next:** 12 Transformer-XL remembers what came before its window. 27 translates with this model, 24 trains many tasks at once.
