# %% [markdown]
# # 21 Prompting: zero-, one- and few-shot
#
# **Sections:** 1.9.q2, 2.2.2, 2.7.3, 2.8.2, 4.8.2, 4.9.q5, 5.2, 5.2.1, 5.2.2, 5.8.2
#
# - **You will be able to:** turn a classifier's question into a gap in a text, score label words exactly, calibrate the answers, show examples and
#   train nothing, say where the ability to learn from them comes from, and tune by words beside a new head.
# - **Prerequisites:** 08 (GPT), 09 (BERT), 20 (few parameters). **Time:** 45 minutes to read; the script takes about 45 s on two cores.
# - **Expected:** a model of strange languages says the right word for 16 % of things without a demonstration, 57 % after one, 96 % after four, and
#   nothing in it changes. A toy GPT of reviews, asked without training, is near chance (48 to 53 %); TF-IDF with 2,000 labels is right on 81 %.
# ## The question
# GPT-3's paper (2.7.3 praises its zero-shot ability; the paper is about few-shot prompts, which scored higher) uses a pretrained model for a new
# task without one gradient: the task is written into the text. Zero-shot means no example, one-shot one, few-shot as many as fit into the context:
#
#     屏幕很清楚。总之很__                    Is 好 likelier than 差 here?
#     键盘坏了。总之很差。屏幕很清楚。总之很__      the same after a demonstration
#
# 1.9.q2 files prefix tuning under zero-shot. It trains a prefix on labelled examples (lesson 20): that is training, of few parameters. Few-shot
# prompting shows examples and trains nothing. 2.2.2, 5.2.1 and 5.2.2 put both beside fine-tuning; 2.8.2, 4.8.2 and 5.8.2 expect models that need
# less of it. 4.9.q5 offers prompts as a way to explain: a prompt steers an answer and gives no reason for it; below, another wording
# gives other answers.
# ## The maths
# A pattern puts the text $x$ into a template, a verbaliser gives each class $c$ a word $v(c)$ of tokens $w_1 \dots w_T$ (Schick and Schuetze 2021).
#
# | model | score of class $c$ |
# | --- | --- |
# | left to right (GPT) | $s_c = \sum_t \log p(w_t \mid \mathrm{prompt}, w_1 \dots w_{t-1})$, over $T$ where words differ in length |
# | both ways (BERT) | $s_c = \log p(v(c) \text{ at the mask} \mid \text{the rest})$; one token |
#
# The answer is $p_c = e^{s_c} / \sum_k e^{s_k}$. A frequent word wins whatever the text. So one asks about a text that says nothing ("N/A") too and
# divides: $q_c \propto p_c / p_c^{N/A}$ (contextual calibration, Zhao et al. 2021). By hand: p = (0.6, 0.4) and p for "N/A" = (0.75, 0.25) give
# 0.8 and 1.6, so q = (1/3, 2/3): the answer turns round. For "N/A" itself q is (1/2, 1/2).

# %%
import functools

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt

from minillm import config, params
from minillm.course.record import figure_path, report
from minillm.data import batches, rows, tokenizer
from minillm.experiment import judging, labelled, supervised
from minillm.experiment.recipes.prompting import ask, make_asked, name_shots, read_known
from minillm.inference import prompting
from minillm.models import gpt
from minillm.models.contract import bind
from minillm.objectives.causal import causal
from minillm.objectives.pattern import pattern
from minillm.objectives.supervised import classify
from minillm.training.optimizer import OptimizerConfig, make_optimizer
from minillm.training.step import init_state, make_gradient, make_train_step
from minillm.tuning.freeze import full

numbers, tuning = {}, full()
by_hand = prompting.calibrate(np.log([[0.6, 0.4], [0.75, 0.25]]), np.log([[0.75, 0.25]]))
assert np.allclose(by_hand, [[1 / 3, 2 / 3], [1 / 2, 1 / 2]])
numbers["calibrated by hand"] = by_hand[0, 1]


def naive_scores(settings, weights, prompt, words):
    """Each word by a whole row of its own, without a cache; the softmax over all of the vocabulary is written out."""
    found = []
    for word in words:
        hidden = gpt.apply(weights, {"tokens": jnp.array([[*prompt, *word]])}, settings).hidden
        read = np.asarray(gpt.logits(weights, hidden), np.float64)[0]
        logs = read - np.log(np.exp(read).sum(axis=1, keepdims=True))
        found.append(sum(logs[len(prompt) - 1 + place, token] for place, token in enumerate(word)))
    return np.array(found)


SMALL = gpt.Config(30, 12, layers=1, width=16, heads=2, init_scale=0.5)
weights = params.init_params(gpt.param_specs(SMALL), jax.random.key(21))
words = [(5,), (6, 7)]
cached = prompting.score_words(gpt, SMALL, weights, [[2, 11, 12, 13]], words)[0]
assert np.allclose(cached, naive_scores(SMALL, weights, [2, 11, 12, 13], words), atol=1e-4)


@functools.cache
def compile_step(settings, objective, steps, rate):
    """(training step, optimizer), once for all seeds."""
    scheduled = OptimizerConfig(learning_rate=rate, warmup_steps=steps // 8)
    optimizer = make_optimizer(scheduled, steps, params.decay_mask(gpt.param_specs(settings)))
    gradient = make_gradient(objective, bind(gpt, settings), tuning, {})
    return jax.jit(make_train_step(gradient, optimizer, tuning, {})), optimizer


def train(settings, objective, batch_at, steps, seed, rate, start=None):
    """-> the trained parameters."""
    step_of, optimizer = compile_step(settings, objective, steps, rate)
    born = params.flatten(params.init_params(gpt.param_specs(settings), jax.random.key(seed)))
    trainable, frozen, extra = tuning.init(params.unflatten(born | params.flatten(start or {})), jax.random.key(seed))
    state = init_state(trainable, extra, optimizer)
    for step in range(steps):
        state, _ = step_of(state, frozen, batch_at(seed, step), jax.random.key(seed))
    return state.trainable


# %% [markdown]
# ## Where few-shot ability comes from
# A world of strange languages: 24 things of two kinds, six words. In each language two of the six words name the kinds, which two is drawn anew. A
# text is eight things, each followed by its word: `fox WO, oak TA, owl WO, ...`. A GPT of two layers reads texts in ever new languages. What can it
# say of a new language? Without a demonstration: 1/6 at best. After $k$: it has seen the kind in question with probability $1 - 2^{-k}$; if not, five
# words are left: $1 - 2^{-k} + 2^{-k}/5$.
# **Predict before you run.** (1) Does it reach that, though no text of that language was in training? (2) What if the words of the
# demonstrations are exchanged? (3) Which parameters change between zero-shot and few-shot?

# %%
KINDS, THINGS, LABELS, PAIRS, STEPS, SEEDS = 2, 12, 6, 8, 500, (0, 1, 2)
WORLD = gpt.Config(2 + LABELS + KINDS * THINGS, 2 * PAIRS + 1, layers=2, width=64, heads=4, tied=False, init_scale=0.05)


def languages(seed, step, count=64):
    """`count` texts, each in a language of its own: begin, thing, word, thing, word, ... [count, 1 + 2 * PAIRS]."""
    random = np.random.default_rng([seed, step])
    named = np.stack([random.permutation(LABELS)[:KINDS] for _ in range(count)])
    kinds = random.integers(0, KINDS, (count, PAIRS))
    things = 2 + LABELS + kinds * THINGS + random.integers(0, THINGS, kinds.shape)
    pairs = np.stack([things, 2 + np.take_along_axis(named, kinds, 1)], -1).reshape(count, -1)
    return np.concatenate([np.ones((count, 1), np.int64), pairs], axis=1).astype(np.int32)


def language_batch(seed, step):
    """What `causal` reads of them."""
    texts = languages(seed, step)
    return {"tokens": texts[:, :-1], "targets": texts[:, 1:], "weights": np.ones(texts[:, 1:].shape, np.float32)}


texts = languages(2**31, 0, 300)  # languages of which no training seed has read
NAMES = [(2 + number,) for number in range(LABELS)]
scores = lambda model, shown: prompting.score_words(gpt, WORLD, model, shown.tolist(), NAMES)
right = lambda model, texts, shots: (
    scores(model, texts[:, : 2 * shots + 2]).argmax(1) == texts[:, 2 * shots + 2] - 2
).mean()
worlds = [train(WORLD, causal, language_batch, STEPS, seed, 3e-3) for seed in SEEDS]
curve = np.array([[right(model, texts, shots) for shots in range(PAIRS)] for model in worlds])
ideal = np.array([1 / LABELS if k == 0 else 1 - 0.5**k + 0.5**k / (LABELS - 1) for k in range(PAIRS)])
moved = texts.copy()
moved[:, 2::2] = 2 + (texts[:, 2::2] - 2 + 1) % LABELS  # every word one on: another language, the same things
numbers |= {f"right word, {shots} shots": curve[:, shots].mean() for shots in (0, 1, 2, 4, 7)}
numbers["follows exchanged words, 4 shots"] = np.mean([right(model, moved, 4) for model in worlds])
assert (np.abs(curve.mean(0) - ideal) < 0.06).all()

# %% [markdown]
# So the weights hold no language; they hold how to read one. That was in the training texts: their second half followed from their first. Where
# pretraining texts have lists, tables and questions with answers, a large model learns the same from them. Nothing was trained here between zero
# and seven shots, and nothing is kept for the next prompt.
# ## Real reviews, a toy model
# A GPT of two layers reads a little of the training part of the Chinese reviews, without labels. Then it is asked: 差 or 好? Without training
# (zero and four shots, plain and calibrated), and tuned on 32 labels: with the words, and with a new head, as in lesson 18; three seeds of labels.
# Beside it: TF-IDF with 32 labels, and with 2,000.

# %%
MODEL = {"kind": "gpt", "context": 96, "layers": 2, "width": 96, "heads": 4, "position": "rotary", "init_scale": 0.04}
DATA = {"source": "reviews-zh", "labels": ["neg", "pos"], "validation": 0.02, "test": 0.02, "length": 64}


def sections(objective, **more):
    """An experiment, as a config would say it."""
    return config.check({"data": DATA, "model": MODEL, "objective": {"name": objective}, **more}, "lesson 21")


by_head, prompted = sections("classify"), {"words": ["差", "好"]}
by_words = sections("pattern", prompt=prompted | {"template": "{text}总之很{label}。"})
reworded = sections("pattern", prompt=prompted | {"template": "{text}我觉得{label}。"})
parts = labelled.split_labelled_documents(by_head.data)[0]
spelled = [document.text for document in parts.train]
tokenizer.train(spelled[::4], 2000, "char", byte_fallback=True, model_file=figure_path("21", "tokenizer.model"))
pieces = tokenizer.load(figure_path("21", "tokenizer.model"))
known, asked = (read_known(by_words, pieces, part) for part in (parts.train, parts.test))
REVIEWS = config.model_config(by_head.model, pieces.vocabulary)[1]
stream = batches.make_dataset([np.array([pieces.bos, *found, pieces.eos], np.int32) for found in known.ids], 96)
base = train(REVIEWS, causal, lambda seed, step: batches.batch_at(stream, seed, step, 16), 120, 0, 3e-3)

answer = lambda how, shots, seed: ask(make_asked(how, pieces, base), how.prompt, known, asked, shots, seed)
accuracy = lambda probabilities: (probabilities.argmax(1) == asked.labels).mean()
found = {"most frequent class": [np.bincount(asked.labels).max() / len(asked.labels)]}
for shots, seeds in ((0, SEEDS[:1]), (4, SEEDS)):
    for form, answers in ((form, said) for seed in seeds for form, said in answer(by_words, shots, seed).items()):
        found.setdefault(name_shots(shots, form), []).append(accuracy(answers))
said, again = (answer(how, 0, 0)["calibrated"].argmax(1) for how in (by_words, reworded))
numbers["answers that another wording changes"] = (said != again).mean()


def tuned(seed, how, objective, few=32):
    """Test accuracy after 30 steps on 32 labels."""
    draw = lambda kind: np.random.default_rng(seed).permutation(np.flatnonzero(np.equal(known.labels, kind)))[
        : few // 2
    ]
    learned = supervised.make_rows(how, pieces, [parts.train[i] for i in (*draw(0), *draw(1))])
    model = train(REVIEWS, objective, lambda s, step: rows.row_batch_at(learned, s, step, 16), 30, seed, 5e-4, base)
    judge = jax.jit(lambda batch: objective(bind(gpt, REVIEWS), model, batch).metrics["accuracy"])
    held_out = rows.row_evaluation_batches(supervised.make_rows(how, pieces, parts.test), 64)
    right, count = np.sum([judge(batch) for batch in held_out], axis=0)
    return float(right / count)


def tfidf(seed, few):
    """Test accuracy of TF-IDF on some training texts."""
    drawn = [parts.train[i] for i in np.random.default_rng(seed).permutation(len(parts.train))[:few]]
    answers = judging.text_baselines(by_head, drawn, parts.validation, parts.test)
    return accuracy(answers["TF-IDF + logistic regression"])


found["tuned by words, 32 labels"] = [tuned(seed, by_words, pattern) for seed in SEEDS]
found["tuned by a new head, 32 labels"] = [tuned(seed, by_head, classify) for seed in SEEDS]
found["TF-IDF, 32 labels"] = [tfidf(seed, 32) for seed in SEEDS]
found["TF-IDF, 2,000 labels"] = [tfidf(0, 2000)]
numbers |= {f"accuracy, {name}": np.mean(values) for name, values in found.items()}
figure, (left, panel) = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
left.plot(range(PAIRS), 100 * ideal, "--", color="grey", label="the most that a text allows")
left.plot(range(PAIRS), 100 * curve.T, "o", color="tab:blue", alpha=0.5)
left.plot(range(PAIRS), 100 * curve.mean(0), color="tab:blue", label="GPT, three seeds, never tuned")
left.set(xlabel="demonstrations", ylabel="right word of six (%)", ylim=(0, 103), title="strange languages")
left.legend()
for place, values in enumerate(found.values()):
    panel.plot([100 * value for value in values], [place] * len(values), "o", color="tab:blue", alpha=0.5)
    panel.plot(100 * np.mean(values), place, "|", color="tab:blue", markersize=18)
panel.axvline(100 * found["most frequent class"][0], linestyle=":", color="grey")
panel.set(yticks=range(len(found)), yticklabels=list(found), xlabel="right (%), held-out reviews")
panel.set_title("reviews: a toy GPT and what it is worth")
panel.invert_yaxis()
figure.savefig(figure_path("21", "shots.png"), dpi=120)
report("21", numbers)

# %% [markdown]
# ## What to read from the figure
# Left: the dots follow the line of the most that a text allows. Right: the toy, asked without training, is near chance. Plain answers say the
# same word to every text; calibration takes that preference away where demonstrations stand before the text, and there is little behind it: 53 %,
# a mean of three draws. With 32 labels tuning by words, by a new head and TF-IDF are within each other's seeds, a little above chance. Another
# wording of the question changes one calibrated answer in nine (4.9.q5): what a prompt answers is no explanation. TF-IDF with 2,000 labels shows
# what is in the texts.
# ## What this toy does not show
# - That zero-shot works: it does in models whose texts hold nearly every task in some form, not in 0.4 million parameters and seconds of reviews.
# - That few-shot learning is always that of the strange languages: large models also use what labels mean (Min et al. 2022).
# - Which template is best: one was taken, and one more to compare with. Who tries many and keeps the best needs held-out texts for that.
# - `minillm prompt RUN --data CONFIG --template "{text}总之很{label}。" --words neg=差,pos=好 --shots 0,1,4` asks any run of yours; the objective
#   `pattern` tunes it by words, and `minillm lab configs/prompting.toml` holds that against a new head, `prompting-masked.toml` with a BERT.
# ## Exercises: `minillm lessons check 21`, with `--hints` for help
# 1. `word_score(logits, prompt, word)` · 15 minutes, easy · the log-probability of a word of several tokens.
# 2. `calibrate(scores, content_free)` · 20 minutes, medium · divide by the answer to a text that says nothing.
# ## Recap
# A pattern and a verbaliser make a classifier of a language model. Zero-, one- and few-shot train nothing; what they can do was in the texts of
# pretraining. Calibration removes a preference, not ignorance. Tuning by words needs no new head.
# - **Glossary:** prompt 提示 · template 模板 · verbaliser 标签词映射 · zero-shot 零样本 · few-shot 少样本 · demonstration 示例 ·
#   in-context learning 上下文学习 · calibration 校准
# - **Common errors:** scoring a word one place too late · a blank before the word that the tokenizer keeps apart · words of different lengths without
#   thinking of their lengths · demonstrations from the test part · comparing with TF-IDF on other labels. **Next:** lesson 22, overfitting.
