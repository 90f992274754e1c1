# %% [markdown]
# # 19 Transfer learning: scratch, frozen, features, joint
#
# **Sections:** 1.2, 1.2.1, 1.3, 1.3.1, 1.3.3, 1.5.3, 1.9.q4, 2.2, 2.2.1, 2.3, 2.3.1, 2.8.1, 2.9, 2.9.q1, 3.3, 3.9, 3.9.q3, 4.3.1, 4.3.2.2, 4.3.3,
# 4.3.3.1, 4.5.3, 4.9, 4.9.q1, 5.2, 5.2.1, 5.3, 5.3.2, 5.3.2.2, 5.3.3.1
#
# - **You will be able to:** compute what freezing does to a gradient; tune one model in six ways and compare them; adapt it to a domain; add losses.
# - **Prerequisites:** 08 (GPT), 18 (fine-tuning). **Time:** an hour to read; the script takes about 110 s on two cores.
# - **Expected:** accuracy with 200 labels, means of three seeds: random weights 0.65 · a base of reviews 0.69, then of news too 0.70, of news alone
#   0.72 · TF-IDF 0.67. The base of both: frozen 0.62, features 0.68, full 0.70, by layer 0.71, gradual 0.71, joint 0.73. Chance is 0.5.
#
# ## The question
# All five documents tell one story: learn from text without labels, then adjust to a task with few (1.2.1, 1.3.1, 2.2.1, 4.3.1, 5.2.1), for speed
# (1.3.3), better scores (4.3.3.1), general knowledge (3.9.q3, 5.3.3.1). *What* is adjusted? The top layers, a new layer on features, or all in joint
# training, says 1.9.q4; a part, says 4.9.q1; the code behind 1.5.3 and 4.5.3 trains everything. **What does a pretrained model bring, and which part
# of it should be trained?** Must it know the domain (2.9.q1)? Ours has read shop reviews; an archive asks which sentences name a person.
# ## The maths
# A frozen base makes features $h$ [rows, width] of the texts; the head scores them. One gradient step of 2.3.1's $\theta^*$, from the top down:
#
# $$s = h W + b, \quad p = \text{softmax}(s), \quad \frac{\partial L}{\partial s} = \frac{p - y}{m}\ [m, 2], \quad
#   \frac{\partial L}{\partial W} = h^T \frac{\partial L}{\partial s}\ [\text{width}, 2], \quad
#   \frac{\partial L}{\partial h} = \frac{\partial L}{\partial s} W^T\ [m, \text{width}]$$
#
# Freezing ends here: the last product, through which all layers below would learn, is never computed. By hand, one text, h = (1, 2), class 0, b = 0,
# W = identity: s = (1, 2), p = (0.27, 0.73), dL/ds = (-0.73, 0.73), dL/dW = [[-0.73, 0.73], [-1.46, 1.46]]. The base would get dL/dh = (-0.73,
# 0.73), through a W that nobody has trained yet; with W = 0 it gets nothing. Howard and Ruder (2018, "ULMFiT") answer with **rates by layer**: a row
# of depth d below the head learns $2.6^{-d}$ times as fast; and with **gradual unfreezing**: the head first, then one more block every few steps.
#
# **Joint training** minimises two means at once (Radford et al. 2018, equation 5, with $\lambda$ = 0.5; several tasks: lesson 24):
#
# $$L = \frac{\text{sum of the task's losses}}{\text{labelled rows}} + \lambda\, \frac{\text{sum of the tokens' losses}}{\text{tokens}}$$
#
# By hand: 2 rows cost 0.7 and 1.3, 12 tokens 60 nats: L = 2/2 + 0.5 * 60/12 = 3.5. Over one number, (2 + 30)/14 = 2.29 is nearly all text.

# %%
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib import pyplot as plt

from minillm import params
from minillm.course.record import figure_path, report
from minillm.data import batches, corpora, rows, tokenizer
from minillm.evaluation import textual
from minillm.models import gpt
from minillm.models.contract import bind
from minillm.objectives.causal import causal
from minillm.objectives.joint import joint
from minillm.objectives.supervised import classify, head_scores
from minillm.training.optimizer import OptimizerConfig, make_optimizer
from minillm.training.step import init_state, make_gradient, make_train_step
from minillm.tuning.freeze import freeze, full
from minillm.tuning.layers import layer_rates

LENGTH, BATCH, WINDOWS, PRETRAIN, STEPS, LABELS, SEEDS = 32, 16, 32, 300, 120, 200, (0, 1, 2)
RATE, RATES = 3e-3, (3e-5, 3e-4, 3e-3, 3e-2)  # of pretraining; tried for tuning
numbers = {"p on paper": jax.nn.softmax(jnp.array([1.0, 2.0]))[1], "joint loss on paper": 2.0 / 2 + 0.5 * 60 / 12}

# %% [markdown]
# ## Three kinds of text
# *General:* reviews, without labels. *Domain:* paragraphs of the People's Daily of January 1998, the first 70 % of the month. *Task:* sentences of
# those days; does one name a person? The marks of the corpus answer. As many of each kind, so chance is 0.5. Validation and test come from later
# days, no sentence of theirs stands in the earlier text, and each seed gets other labels. The vocabulary comes with the base: characters of reviews.

# %%
paragraphs = corpora.read("people-daily-ner-zh")  # in the order of the days
tenth, seen, random, sentences = len(paragraphs) // 10, set(), np.random.default_rng(19), {}
days = {"train": paragraphs[: 7 * tenth], "validation": paragraphs[7 * tenth : 8 * tenth]}
days["test"] = paragraphs[8 * tenth :]
for part, texts in days.items():
    kinds = [], []  # without a name, with one
    for paragraph in texts:
        for match in re.finditer("[^。！？；]+[。！？；]", paragraph.text):
            if 12 <= len(match.group()) <= LENGTH - 2 and match.group() not in seen:
                seen.add(match.group())
                kinds["B-PER" in paragraph.label[slice(*match.span())]].append(match.group())
    mixed = [random.permutation(kind)[: min(map(len, kinds))].tolist() for kind in kinds]
    sentences[part] = [(text, label) for pair in zip(*mixed, strict=True) for label, text in enumerate(pair)]
    numbers[f"sentences, {part}"] = len(sentences[part])
reviews = list(dict.fromkeys(document.text for document in corpora.read("reviews-zh")))
news = list(dict.fromkeys(paragraph.text for paragraph in days["train"]))
del paragraphs, paragraph, days, texts  # a million characters, each with its tag
tokenizer.train(reviews, 3000, "char", model_file=figure_path("19", "tokenizer.model"))
pieces = tokenizer.load(figure_path("19", "tokenizer.model"))
framed = lambda texts: [np.array([pieces.bos, *ids, pieces.eos], np.int32) for ids in pieces.encode_many(texts)]
TEXT = {name: batches.make_dataset(framed(texts), LENGTH) for name, texts in (("reviews", reviews), ("news", news))}


def make_rows(pairs) -> rows.RowDataset:
    """(sentence, label) pairs -> rows with their padding in front, as the head reads the last place."""
    ids, labels = pieces.encode_many([text for text, _ in pairs]), np.array([label for _, label in pairs], np.int32)
    return rows.to_the_right(rows.text_rows(ids, None, labels, LENGTH, rows.Frame(pieces.bos, pieces.eos, pieces.pad)))


few = [sentences["train"][seed * LABELS : (seed + 1) * LABELS] for seed in SEEDS]
train, validation, test = list(map(make_rows, few)), make_rows(sentences["validation"]), make_rows(sentences["test"])
CONFIG = gpt.Config(vocabulary=pieces.vocabulary, context=LENGTH, layers=2, width=48, heads=4, norm="rms", position="rotary",
                    init_scale=0.08, tasks=("classify",), labels=2, scan=True)  # fmt: skip
SPECS, MODEL = gpt.param_specs(CONFIG), bind(gpt, CONFIG)
LANGUAGE = {path: spec for path, spec in SPECS.items() if not path.startswith("classify")}  # all but the head
WAYS = {  # name -> objective, tuning, coefficients
    "full": (classify, full(), {}), "frozen base": (classify, freeze(tuple(LANGUAGE)), {}),
    "rates by layer": (classify, full(layer_decay=1 / 2.6), {}),
    "gradual unfreezing": (classify, full(unfreeze_every=20), {}),
    "joint": (joint({"task": classify, "text": causal}), full(), {"text/loss": 0.5}),
}  # fmt: skip

# %% [markdown]
# **By hand first:** the library's step with a frozen base, its rates by layer and its joint loss, each beside a line or two of NumPy.

# %%
weights, batch = params.init_params(SPECS, jax.random.key(19)), rows.row_batch_at(train[0], 0, 0, BATCH)
h = np.asarray(jax.jit(lambda p, batch: MODEL.apply(p, batch).hidden[:, -1])(weights, batch))  # [rows, width], cached
raised = np.exp(h @ np.asarray(weights["classify"]["kernel"]) + np.asarray(weights["classify"]["bias"]))
said, truth, cost = raised / raised.sum(1, keepdims=True), np.eye(2)[batch["labels"]], {}
for name, (task, way, _) in list(WAYS.items())[:2]:
    gradient, start = jax.jit(make_gradient(task, MODEL, way, {})), (*way.init(weights, None), batch, None)
    cost[name] = gradient.lower(*start).cost_analysis()["flops"]
numbers["FLOPs of a gradient, frozen / full"] = cost["frozen base"] / cost["full"]
found = params.flatten(gradient(*start)[0])
assert set(found) == {"classify/kernel", "classify/bias"}
assert np.allclose(h.T @ (said - truth) / BATCH, found["classify/kernel"], atol=1e-5)
assert np.allclose((said - truth).mean(0), found["classify/bias"], atol=1e-5)
scale = params.flatten(layer_rates(1 / 2.6, 20)(weights, 25))  # at step 25: depths 0 and 1 have thawed
assert np.allclose(scale["blocks/attention/query/kernel"].ravel(), [0.0, 1 / 2.6])  # bottom, top
assert (scale["classify/kernel"], scale["embedding/table"]) == (1.0, 0.0)
text = batches.batch_at(TEXT["news"], 0, 0, BATCH)
sums = jax.jit(partial(WAYS["joint"][0], MODEL))(weights, {"task": batch, "text": text})
alone = jax.jit(partial(causal, MODEL))(weights, text)
assert np.isclose(sums.sums["task/loss"] / sums.weights["task/loss"], -np.log(said[truth > 0]).mean(), rtol=1e-4)
assert np.isclose(sums.sums["text/loss"] / sums.weights["text/loss"], alone.sums["loss"] / (BATCH * LENGTH), rtol=1e-5)

# %% [markdown]
# ## Four bases, six ways
# Bases: random weights; *reviews* (300 steps); *reviews, then news*: 300 more on the domain's text, which is **domain-adaptive pretraining**
# (Gururangan et al. 2020); *news* alone (300). Then tuning: 120 steps of 16 labelled sentences, each way; joint training reads 16 windows of news
# beside them. Features need no steps: the base reads each text once, and a logistic regression takes the mean of its vectors to the optimum. Beside
# all: TF-IDF.

# %%
adamw = make_optimizer(OptimizerConfig(learning_rate=RATE, warmup_steps=40), PRETRAIN, params.decay_mask(LANGUAGE))
unit = OptimizerConfig(learning_rate=1.0, warmup_steps=12, schedule="linear", final_ratio=0.0, weight_decay=0.0)
scaled = lambda rate: optax.chain(make_optimizer(unit, STEPS, None), optax.scale(rate))


def compile_step(make, objective, way, coefficients):
    """-> step(rate, state, frozen, batch, key), compiled; make(rate) is the optimizer."""
    gradient = make_gradient(objective, MODEL, way, coefficients)
    step = lambda rate, *inputs: make_train_step(gradient, make(rate), way, coefficients)(*inputs)
    return jax.jit(step, donate_argnums=1)


def fit(step, optimizer, trainable: dict, frozen: dict, steps: int, batch_at) -> dict:
    """-> what was trainable, trained. It is copied first, as the step donates its state."""
    state = init_state(jax.tree.map(jnp.array, trainable), {}, optimizer)
    for number in range(steps):
        state, _ = step(state, frozen, batch_at(number), jax.random.key(0))
    return state.trainable


read_text = lambda name, seed, size, step: batches.batch_at(TEXT[name], seed, step, size)
pretrain_step = partial(compile_step(lambda rate: adamw, causal, full(), {}), RATE)
tune_steps = {name: compile_step(scaled, *way) for name, way in WAYS.items()}


def tune(name: str, start: dict, seed: int, rate: float) -> dict:
    """-> parameters of the whole model. The head is new."""
    trainable, frozen, _ = WAYS[name][1].init(params.init_params(SPECS, jax.random.key(seed + 100)) | start, None)
    labelled = lambda step: rows.row_batch_at(train[seed], seed, step, BATCH)
    both = lambda step: {"task": labelled(step), "text": read_text("news", seed + 10, BATCH, step)}
    batch_at = both if name == "joint" else labelled
    step = partial(tune_steps[name], rate)
    return WAYS[name][1].attach(fit(step, scaled(rate), trainable, frozen, STEPS, batch_at), frozen)


score = jax.jit(lambda p, batch: head_scores(MODEL, p, batch, None, "classify"))
feature = jax.jit(lambda p, b: (MODEL.apply(p, b).hidden * b["mask"][..., None]).sum(1) / b["mask"].sum(1)[:, None])
read = lambda function, p, data: np.double(function(p, next(rows.row_evaluation_batches(data, len(data.tokens)))))
hits = lambda said, data=test: float((said.argmax(1) == data.labels).mean())
regress = lambda p, made: textual.logistic_head(read(feature, p, made), made.labels, read(feature, p, test), 2)
judge = lambda models, data=test: [hits(read(score, p, data), data) for p in models]

# %% [markdown]
# ## Predict before you run
# Three curves choose their rate on the validation part, as a mean over seeds; every other way and base takes that of full tuning of the third base.
# 1. Order by test accuracy: full tuning of random weights; of reviews; of reviews, then news; of news; TF-IDF.
# 2. Of the base that read both: full, frozen base, features, rates by layer, gradual unfreezing, joint. Which is best?
# 3. 2.9.q2: tune at a tenth to a hundredth of pretraining's rate (here 3e-3). Is that right for full tuning? For a frozen base? For random weights?

# %%
born = [params.init_params(LANGUAGE, jax.random.key(seed)) for seed in SEEDS]
go_on = lambda models, name: [
    fit(pretrain_step, adamw, p, {}, PRETRAIN, partial(read_text, name, seed, WINDOWS)) for seed, p in enumerate(models)
]
bases = {"random weights": born, "reviews": go_on(born, "reviews"), "news": go_on(born, "news")}
BOTH_TEXTS, curves, scores = "reviews, then news", {}, {}
bases[BOTH_TEXTS] = go_on(bases["reviews"], "news")
tune_all = lambda name, base, rate: [tune(name, p, seed, rate) for seed, p in enumerate(bases[base])]
for pair in (("full", "random weights"), ("frozen base", BOTH_TEXTS), ("full", BOTH_TEXTS)):
    models = {rate: tune_all(*pair, rate) for rate in RATES}
    curves[pair] = [np.mean(judge(found, validation)) for found in models.values()]
    best = RATES[int(np.argmax(curves[pair]))]
    scores[pair] = judge(models[best])
    numbers |= {f"validation, {', '.join(pair)}, {rate:g}": at for rate, at in zip(RATES, curves[pair], strict=True)}
others = [(name, BOTH_TEXTS) for name in list(WAYS)[2:]]
for name, base in (("full", "reviews"), ("full", "news"), *others, ("joint", "reviews")):
    scores[name, base] = judge(tune_all(name, base, best))
examples = lambda pairs: textual.Examples([text for text, _ in pairs], np.array([label for _, label in pairs]))
counted = [textual.fit_tfidf(examples(pairs), examples(sentences["validation"]), 2) for pairs in few]
scores["TF-IDF", "none"] = [hits(model.predict([text for text, _ in sentences["test"]])) for model in counted]
for base, models in bases.items():
    scores["features", base] = [hits(regress(p, made)) for p, made in zip(models, train, strict=True)]
numbers |= {f"test, {name}, {base}": np.mean(found) for (name, base), found in scores.items()}
for pair in (("full", "random weights"), ("full", "reviews"), ("full", "news"), ("TF-IDF", "none")):
    numbers[f"ahead at least by, of {', '.join(pair)}"] = np.subtract(scores["full", BOTH_TEXTS], scores[pair]).min()
figure, (bars, panel) = plt.subplots(1, 2, figsize=(13, 5), dpi=120, layout="constrained", width_ratios=(3, 2))
for height, (pair, found) in enumerate(sorted(scores.items(), key=lambda item: np.mean(item[1]))):
    bars.barh(": ".join(pair), np.mean(found), color=f"C{[*bases, 'none'].index(pair[1])}", alpha=0.7)
    bars.plot(found, [height] * len(SEEDS), "k|", markersize=10)
bars.set(xlim=(0.48, 0.85), xlabel="accuracy, test (marks: seeds)", title="200 labels: way of tuning, base")
for pair, curve in curves.items():
    panel.semilogx(RATES, curve, "o-", label=": ".join(pair))
panel.axvspan(RATE / 100, RATE / 10, color="grey", alpha=0.15, label="advised: pretraining's / 100 to / 10")
panel.set(xlabel="learning rate of tuning", ylabel="accuracy, validation", title="How large a step?")
panel.legend(frameon=False)
figure.savefig(figure_path("19", "transfer.png"))
report("19", numbers)

# %% [markdown]
# **What to read from the figure.** Left: pretraining pays: in every seed each pretrained base, tuned in full, is ahead of random weights, and that of
# both texts ahead of TF-IDF. Domain-adaptive pretraining lifts the features from 0.61 to 0.68, in every seed; after full tuning no gain is shown, and
# the base that never read reviews is ahead. A frozen base is behind random weights tuned in full: its last vector was made to guess the next
# character. Ways that move the base beat its features in the mean; joint is first, but the test's own error is 0.018, and three seeds do not order
# these ways. Right: all curves are best at pretraining's own rate. A tenth costs the pretrained model 0.02, a hundredth is far behind after 120
# steps, ten times more undoes what it had learned. The advice may fit long runs of large models; here it does not hold.
# ## What this toy does not show
# A base that has read thousands of times more (lesson 29); other tasks, amounts of labels and rates between ours; next year's names.
# ## Exercises: `minillm lessons check 19`, with `--hints` when stuck
# 1. `head_gradient(features, labels, kernel, bias)`: all that a frozen base leaves to compute (15 minutes, easy).
# 2. `multipliers(layers, decay, every, step)`: who learns how fast, and from when on (15 minutes, medium).
# 3. `joint_loss(shards, coefficients)`: two losses over a batch in pieces (20 minutes, medium).
# ## Recap
# Pretrain near the task, tune everything, keep features and TF-IDF beside it, choose the rate on validation, believe what all seeds say.
# **Glossary:** transfer learning 迁移学习 · frozen 冻结 · joint training 联合训练 · gradual unfreezing 逐层解冻 · domain adaptation 领域自适应
# **Common errors:** the head's rate taken from full tuning; two losses over one denominator; pretraining that has read the test; one seed.
# **Next:** 20 trains a few per cent of the weights, in every layer.
