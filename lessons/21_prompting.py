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
#
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
# ## The library

# %%
import functools

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt

from minillm import params
from minillm.course.record import figure_path, report
from minillm.data import batches, clean_labelled, corpora, prompts, rows, stratify, tokenizer
from minillm.evaluation import demonstrations, textual
from minillm.evaluation.intervals import over_seeds
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
by_hand = prompting.calibrate(np.log([[0.6, 0.4]]), np.log([[0.75, 0.25]]))[0]
assert np.allclose(by_hand, [1 / 3, 2 / 3])
assert np.allclose(prompting.calibrate(np.log([[0.75, 0.25]]), np.log([[0.75, 0.25]])), 0.5)
numbers["calibrated by hand"] = by_hand[1]


def naive_scores(config, weights, prompt, words):
    """Each word by a whole row of its own, without a cache; the softmax over all of the vocabulary is written out."""
    found = []
    for word in words:
        row = np.array([[*prompt, *word]])
        read = np.asarray(
            gpt.logits(weights, gpt.apply(weights, {"tokens": jnp.asarray(row)}, config).hidden), np.float64
        )[0]
        logs = read - np.log(np.exp(read).sum(axis=1, keepdims=True))
        found.append(sum(logs[len(prompt) - 1 + place, token] for place, token in enumerate(word)))
    return np.array(found)


SMALL = gpt.Config(30, 12, layers=1, width=16, heads=2, init_scale=0.5)
weights = params.init_params(gpt.param_specs(SMALL), jax.random.key(21))
words = [(5,), (6, 7)]
cached = prompting.score_words(gpt, SMALL, weights, [[2, 11, 12, 13]], words)[0]
assert np.allclose(cached, naive_scores(SMALL, weights, [2, 11, 12, 13], words), atol=1e-4)


@functools.cache
def compile_step(config, objective, steps, rate):
    """(training step, optimizer), once for all seeds."""
    optimizer = make_optimizer(
        OptimizerConfig(learning_rate=rate, warmup_steps=steps // 8), steps, params.decay_mask(gpt.param_specs(config))
    )
    return jax.jit(
        make_train_step(make_gradient(objective, bind(gpt, config), tuning, {}), optimizer, tuning, {})
    ), optimizer


def train(config, objective, batch_at, steps, seed, rate, base=None):
    """-> the trained parameters."""
    step_of, optimizer = compile_step(config, objective, steps, rate)
    born = params.flatten(params.init_params(gpt.param_specs(config), jax.random.key(seed)))
    trainable, frozen, extra = tuning.init(params.unflatten(born | params.flatten(base or {})), jax.random.key(seed))
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
    inputs, targets = texts[:, :-1], texts[:, 1:]
    return {"tokens": inputs, "targets": targets, "weights": np.ones(inputs.shape, np.float32)}


texts = languages(2**31, 0, 300)  # languages of which no training seed has read
label_words = [(2 + number,) for number in range(LABELS)]
ask = lambda model, shown, shots: prompting.score_words(
    gpt, WORLD, model, shown[:, : 2 * shots + 2].tolist(), label_words
)
right = lambda scores, shots: (scores.argmax(1) == texts[:, 2 * shots + 2] - 2).mean()
worlds = [train(WORLD, causal, language_batch, STEPS, seed, 3e-3) for seed in SEEDS]
curve = np.array([[right(ask(model, texts, shots), shots) for shots in range(PAIRS)] for model in worlds])
ideal = np.array([1 / LABELS if k == 0 else 1 - 0.5**k + 0.5**k / (LABELS - 1) for k in range(PAIRS)])
other = 2 + (texts[:, 2::2] - 2 + 1) % LABELS  # every word one on: another language, the same things
moved = texts.copy()
moved[:, 2::2] = other
numbers |= {f"right word, {shots} shots": curve[:, shots].mean() for shots in (0, 1, 2, 4, 7)}
numbers["follows exchanged words, 4 shots"] = np.mean(
    [(ask(m, moved, 4).argmax(1) == moved[:, 10] - 2).mean() for m in worlds]
)
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
CONTEXT, TEMPLATES = 96, ("{text}总之很{label}。", "{label}：{text}")
documents, _ = clean_labelled.clean_labelled(corpora.read("reviews-zh"))
parts = stratify.split_labelled(documents, validation=0.02, test=0.02, seed=0)
spelled = [document.text for document in parts.train]
tokenizer.train(spelled[::4], 2000, "char", byte_fallback=True, model_file=figure_path("21", "tokenizer.model"))
pieces = tokenizer.load(figure_path("21", "tokenizer.model"))
ids = [np.array([pieces.bos, *found, pieces.eos], np.int32) for found in pieces.encode_many(spelled)]
stream = batches.make_dataset(ids, CONTEXT)
REVIEWS = gpt.Config(
    pieces.vocabulary, CONTEXT, layers=2, width=96, heads=4, position="rotary", init_scale=0.04, tasks=("classify",)
)
base = train(REVIEWS, causal, lambda seed, step: batches.batch_at(stream, seed, step, 16), 120, 0, 3e-3)

CLASSES = ("neg", "pos")
label_of = lambda part: np.array([CLASSES.index(document.label) for document in part], np.int32)
test_texts, truth = pieces.encode_many([document.text for document in parts.test]), label_of(parts.test)
train_ids, train_labels = [found[1:-1].tolist() for found in ids], label_of(parts.train)
made = prompts.encode(prompts.parse(TEMPLATES[0]), ("差", "好"), "\n", pieces, None)


def answer(pattern_, shots, seed):
    """(plain, calibrated) probabilities for all test texts, after `shots` drawn demonstrations."""
    shown = [(train_ids[i], train_labels[i]) for i in demonstrations.draw(len(train_ids), shots, seed)]
    asked = [
        prompts.prompt(pattern_, shown, text, CONTEXT)[0] for text in [*test_texts, *pieces.encode_many(["N/A", ""])]
    ]
    scores = prompting.score_words(gpt, REVIEWS, base, asked, pattern_.words)
    return prompting.answers(scores[:-2]), prompting.calibrate(scores[:-2], scores[-2:])


accuracy = lambda probabilities: (probabilities.argmax(1) == truth).mean()
found = {"most frequent class": [np.bincount(truth).max() / len(truth)]}
for shots in (0, 4):
    seeds = SEEDS if shots else SEEDS[:1]
    for name, row in zip(
        ("", ", calibrated"), zip(*(answer(made, shots, seed) for seed in seeds), strict=True), strict=True
    ):
        found[f"{shots} shots{name}"] = [accuracy(probabilities) for probabilities in row]
again = prompts.encode(prompts.parse("{text}我觉得{label}。"), ("差", "好"), "\n", pieces, None)
numbers["answers that another wording changes"] = (
    answer(again, 0, 0)[1].argmax(1) != answer(made, 0, 0)[1].argmax(1)
).mean()
frame, few = rows.Frame(pieces.bos, pieces.eos, pieces.pad), 32


def tuned(seed, by_words):
    """Test accuracy after 30 steps on 32 labels, by words in the template or by a new head."""
    chosen = np.concatenate(
        [np.random.default_rng(seed).permutation(np.flatnonzero(train_labels == c))[: few // 2] for c in (0, 1)]
    )
    labels = [train_labels[chosen], truth]
    texts_ = [[train_ids[i] for i in chosen], test_texts]
    if by_words:
        asked = [zip(*(prompts.prompt(made, (), text, 64) for text in part), strict=True) for part in texts_]
        single = prompts.single_tokens(made.words, ("差", "好"))
        sets = [rows.pattern_rows(*part, y, single, 64, frame) for part, y in zip(asked, labels, strict=True)]
    else:
        sets = [rows.text_rows(part, None, y, 64, frame) for part, y in zip(texts_, labels, strict=True)]
    sets = [rows.to_the_right(part) for part in sets]
    objective = pattern if by_words else classify
    model = train(REVIEWS, objective, lambda s, step: rows.row_batch_at(sets[0], s, step, 16), 30, seed, 5e-4, base)
    judge = jax.jit(lambda batch: objective(bind(gpt, REVIEWS), model, batch).metrics["accuracy"])
    sums = np.sum([judge(batch) for batch in rows.row_evaluation_batches(sets[1], 64)], axis=0)
    return float(sums[0] / sums[1])


found["tuned by words, 32 labels"] = [tuned(seed, True) for seed in SEEDS]
found["tuned by a new head, 32 labels"] = [tuned(seed, False) for seed in SEEDS]


def tfidf(places):
    """Test accuracy of TF-IDF on these training texts."""
    examples = lambda part, y: textual.Examples([document.text for document in part], y)
    fitted = textual.fit_tfidf(
        examples([parts.train[i] for i in places], train_labels[places]),
        examples(parts.validation, label_of(parts.validation)),
        2,
    )
    return accuracy(fitted.predict([document.text for document in parts.test]))


draws = [np.random.default_rng(seed).permutation(len(train_ids))[:few] for seed in SEEDS]
found["TF-IDF, 32 labels"] = [tfidf(draw) for draw in draws]
found["TF-IDF, 2,000 labels"] = [tfidf(np.random.default_rng(0).permutation(len(train_ids))[:2000])]
numbers |= {f"accuracy, {name}": np.mean(values) for name, values in found.items()}
figure, (left, panel) = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
left.plot(range(PAIRS), 100 * ideal, "--", color="grey", label="the most that a text allows")
for row in curve:
    left.plot(range(PAIRS), 100 * row, "o", color="tab:blue", alpha=0.5)
left.plot(range(PAIRS), 100 * curve.mean(0), color="tab:blue", label="GPT, three seeds, never tuned")
left.set(xlabel="demonstrations", ylabel="right word of six (%)", ylim=(0, 103), title="strange languages")
left.legend()
for place, values in enumerate(found.values()):
    spread = over_seeds(values)
    panel.plot([100 * v for v in values], [place] * len(values), "o", color="tab:blue", alpha=0.5)
    panel.plot(100 * spread["mean"], place, "|", color="tab:blue", markersize=18)
panel.axvline(100 * found["most frequent class"][0], linestyle=":", color="grey")
panel.set_yticks(range(len(found)), list(found))
panel.invert_yaxis()
panel.set(xlabel="right (%), held-out reviews", title="reviews: a toy GPT and what it is worth")
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
#
# `minillm prompt RUN --data CONFIG --template "{text}总之很{label}。" --words neg=差,pos=好 --shots 0,1,4` asks any run of yours; the objective
# `pattern` tunes it by words, and `minillm lab configs/prompting.toml` holds that against a new head.
# ## Exercises: `minillm lessons check 21`, with `--hints` for help
# 1. `word_score(logits, prompt, word)` · 15 minutes, easy · the log-probability of a word of several tokens.
# 2. `calibrate(scores, content_free)` · 20 minutes, medium · divide by the answer to a text that says nothing.
# ## Recap
# A pattern and a verbaliser make a classifier of a language model. Zero-, one- and few-shot train nothing; what they can do was in the texts of
# pretraining. Calibration removes a preference, not ignorance. Tuning by words needs no new head.
# - **Glossary:** prompt 提示 · template 模板 · verbaliser 标签词映射 · zero-shot 零样本 · few-shot 少样本 · demonstration 示例 ·
#   in-context learning 上下文学习 · calibration 校准
# - **Common errors:** scoring a word one place too late · a blank before the word that the tokenizer keeps apart · words of different lengths without
#   thinking of their lengths · demonstrations from the test part · comparing with TF-IDF on other labels.
# - **Next:** lesson 22, overfitting and its remedies.
