# %% [markdown]
# # 17 Data and metrics
#
# **Sections:** 1.4.3, 1.5.4, 1.8.1, 1.8.3, 2.5.4, 2.7.1, 3.9.q5, 4.3.2.1, 4.3.3.2, 4.5.2.1, 4.5.2.2, 4.9.q4
#
# - **You will be able to:** clean and split labelled texts; compute F1 and BLEU on paper; put an interval around a score and say what it cannot know.
# - **Prerequisites:** 01 (tokens), 02 (held-out texts). **Time:** 45 s on two cores; an hour of reading.
# - **Expected:** on paper accuracy 0.80, macro F1 0.69, BLEU 0.64. A model has 94 % on a raw split, 83 % on an honest one, 82 % on new reviews; a
#   dictionary that understands nothing 85 % on the raw split. 90 % of the characters are tagged rightly, and not one name is found.
# ## The question
# Two colleagues train the same kind of model on the same Chinese reviews. One reports 94 % accuracy, the other 83 %. On new reviews both models reach
# 82 %. Neither *model* has a bug: the difference was made before it, in the data, or behind it, in the measuring. 1.8.3, 3.9.q5 and 4.3.3.2 warn that
# all depends on the quality of the data. Here we measure how much, and how sure we can be of what we measured.
# ## Metrics: add up first, divide once
# Each example has a true class and a decided one. For a class $c$, $\text{hits}_c$ counts the examples of $c$ that were decided as $c$,
# $\text{decided}_c$ all that were decided as $c$, rightly or not, and $\text{actual}_c$ all that are $c$; $n$ counts all examples.
#
# $$\text{precision}_c = \frac{\text{hits}_c}{\text{decided}_c} \qquad \text{recall}_c = \frac{\text{hits}_c}{\text{actual}_c} \qquad
#   F_{1,c} = \frac{2\, \text{hits}_c}{\text{decided}_c + \text{actual}_c} \qquad \text{accuracy} = \frac{\sum_c \text{hits}_c}{n}$$
#
# Precision: how many of my alarms are true? Recall: how many of the fires did I report? $F_1$ is their harmonic mean. **Macro F1** is the mean of
# $F_1$ over classes: a rare class weighs as much as a frequent one. On paper, two negative (-) and eight positive (+) reviews:
#
#     true      - - + + + + + + + +        class -: 1 hit, 2 decided, 2 actual, F1 = 2/4 = 0.5         accuracy = 8/10 = 0.80
#     decided   - + - + + + + + + +        class +: 7 hits, 8 decided, 8 actual, F1 = 14/16 = 0.875    macro F1 = 1.375/2 = 0.69
#
# Whoever always says + has accuracy 0.80 too, but a macro F1 of (0 + 16/18) / 2 = 0.44. The partners of F1 are *precision* (精确率) and recall; 1.5.4
# and 4.9.q4 write 准确率, which is accuracy. 2.5.4 adds up the accuracies of batches and divides by the number of *examples*: our ten in batches of
# 4, 4 and 2 have 2/4, 4/4 and 2/2, which gives 2.5/10 = 0.25. The mean of the three, 0.83, is wrong too: the last batch is smaller. Right: 8 of 10.

# %%
import hashlib
from collections import Counter

import numpy as np
from matplotlib import pyplot as plt

from minillm.course.record import figure_path, report
from minillm.data import corpora
from minillm.data.clean_labelled import clean_labelled, find_leaks, fold
from minillm.data.stratify import split_labelled
from minillm.evaluation import classification, entities, intervals, tagging, textual
from minillm.report.plot import COLOURS

TRUE, DECIDED = np.array([0, 0, 1, 1, 1, 1, 1, 1, 1, 1]), np.array([0, 1, 0, 1, 1, 1, 1, 1, 1, 1])  # 0 is -, 1 is +


def naive_scores(true: np.ndarray, decided: np.ndarray) -> tuple[float, float]:
    """Accuracy and macro F1 of two classes, example by example."""
    hits = [sum(y == z == c for y, z in zip(true, decided, strict=True)) for c in (0, 1)]
    sizes = [sum(y == c for y in true) + sum(z == c for z in decided) for c in (0, 1)]  # actual + decided
    return sum(hits) / len(true), sum(2 * hits[c] / max(sizes[c], 1) for c in (0, 1)) / 2


def naive_interval(true: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """Draw n of the n examples with replacement, score, 1000 times; the middle 95 %. [low and high, metrics]"""
    random, n = np.random.default_rng(0), len(true)
    draws = [random.integers(0, n, n) for _ in range(1000)]
    return np.quantile([naive_scores(true[drawn], decided[drawn]) for drawn in draws], [0.025, 0.975], axis=0)


sure = np.eye(2)[DECIDED]  # [examples, classes]: the library takes probabilities
toy = intervals.bootstrap(lambda weights: classification.single_label(TRUE, sure, weights), len(TRUE))
naive = np.vstack([naive_scores(TRUE, DECIDED), naive_interval(TRUE, DECIDED)])  # [value and low and high, metrics]
assert np.allclose(naive.T, [[*toy[name].values()] for name in ("accuracy", "macro_f1")])
print(f"accuracy {toy['accuracy']}\nmacro F1 {toy['macro_f1']}")
batches = sum(batch.mean() for batch in np.split(TRUE == DECIDED, [4, 8]))

# %% [markdown]
# The second function is the **bootstrap** (Efron 1979). It asks: with ten *other* reviews, what would the score have been? We have no others, so we
# draw from those we have. The answer for ten reviews: accuracy 0.8, but anything from 0.6 to 1 would be no surprise.
# ## BLEU: the same rule for translations
# BLEU (Papineni et al. 2002) counts n-grams that a candidate shares with its reference. $p_n$: of all runs of $n$ words in all candidates, the share
# that stands in the references too, each run at most as often as there (*clipped*). $c$ and $r$: words in all candidates, in all references.
#
# $$\text{BLEU} = \min\left(1, e^{1 - r/c}\right) \cdot (p_1\, p_2\, p_3\, p_4)^{1/4}$$
#
# On paper: reference "there is a cat on the mat", candidate "there is a cat on a mat". 6 of 7 words count (the second *a* is clipped), 4 of 6 pairs,
# 3 of 5 triples, 2 of 4 runs of four; equal lengths; BLEU = (6/7 · 4/6 · 3/5 · 2/4)^(1/4) = 0.643. For the short "there is a cat" all $p_n$ are 1,
# but the first factor, the price for leaving things out, is $e^{1 - 7/4}$ = 0.472. Of both, added up first: 0.565 (the mean is 0.558).


# %%
def bleu(candidates: list[str], references: list[str], longest: int = 4) -> float:
    """One reference for each candidate; blanks part words."""
    hits, totals, sizes = np.zeros(longest), np.zeros(longest), np.zeros(2)
    for pair in zip(candidates, references, strict=True):
        words = [text.split() for text in pair]
        sizes += [len(row) for row in words]
        for n in range(1, longest + 1):
            runs, known = (Counter(zip(*(row[k:] for k in range(n)), strict=False)) for row in words)
            hits[n - 1] += (runs & known).total()  # & takes the smaller count of each run: the clipping
            totals[n - 1] += runs.total()
    return min(1.0, np.exp(1.0 - sizes[1] / sizes[0])) * np.prod(hits / np.maximum(totals, 1)) ** (1 / longest)


REFERENCE, LONG, SHORT = "there is a cat on the mat", "there is a cat on a mat", "there is a cat"
translated = bleu([LONG], [REFERENCE]), bleu([SHORT], [REFERENCE]), bleu([LONG, SHORT], [REFERENCE] * 2)
product = 10 / 11 * 7 / 9 * 5 / 7 * 3 / 5  # p1 to p4 of both together
assert np.allclose(translated, [(6 / 7 * 4 / 6 / 2 * 3 / 5) ** 0.25, np.exp(-3 / 4), np.exp(-3 / 11) * product**0.25])

# %% [markdown]
# ## The data: look before you split
# 35,123 Chinese reviews of books, hotels and laptops, labelled neg or pos. 4.3.2.1 asks for cleaning. `clean_labelled` removes *all* copies of a text
# that stands under both labels, then all copies but the first of the others. Two texts are copies if `fold` makes them equal: case, width, blanks and
# punctuation say nothing. It counts what it removes and shows examples; read them before you read any score. Wrong labels that stay shift scores:
# with 5 % of them in the test, at random, a model that is right in 90 % seems right in 0.9 · 0.95 + 0.1 · 0.05 = 86 %.
#
# Then the split, into three parts (1.4.3): training to fit, validation to choose, test to report, once. `split_labelled` is **stratified**, each
# class has its share of each part, and **grouped**, copies stay together. (4.5.2.2 takes int(0.8 n) and int(1 - 0.8 n): of 1000, 800 and -799.) To
# save time we take a fifth of the texts, chosen by a hash of the folded text, so that all copies come along. Three tenths, cleaned, stay aside as
# *new reviews*: what comes in after the report is written. In real life you do not have them. Here they tell us who was right.
# ## Predict before you run
# The model: TF-IDF of one to three characters and logistic regression, its strength chosen on validation. Its rival is a **dictionary**: if training
# holds a copy of the test text, it answers with the copy's label, otherwise "neg". It understands nothing. Which accuracy has it on the raw split?
# And the model, on the raw split, the honest one, on new reviews? On the raw split, does it err on texts with a copy in training, or on the others?
# Another leak: 4.5.2.1 reads lines like `物流很快:1`, takes the label behind the colon, and keeps *the whole line* as the text. Which score has
# that in the test? And on new reviews, behind which nobody writes a label? (Cut at the *last* colon: `10:30 到货:1` breaks `split(':')[1]`.)

# %%
CLASSES, SEEDS = ("neg", "pos"), (4, 3, 2, 1, 0)  # what the last seed leaves behind is used below
everything = corpora.read("reviews-zh")
cleaned, cleaning = clean_labelled(everything)
for kind, found in cleaning.examples.items():
    print(f"{kind}: {getattr(cleaning, kind + '_documents')}, such as {found[-1]}")
share = lambda d: int.from_bytes(hashlib.sha256(fold(d.text).encode()).digest()[:8], "big") / 2**64  # in [0, 1)
raw, honest = ([d for d in documents if share(d) < 0.2] for documents in (everything, cleaned))
new = sorted((d for d in cleaned if share(d) >= 0.7), key=share)  # the source has books first, then hotels
texts = lambda part: [d.text for d in part]
truth = lambda part: np.array([CLASSES.index(d.label) for d in part])
examples = lambda part: textual.Examples(texts(part), truth(part))
fit = lambda train, validation: textual.fit_tfidf(examples(train), examples(validation), len(CLASSES)).predict
judge = lambda model, part: model(texts(part)).argmax(1) == truth(part)  # [texts], right or not
rows = []
for seed in SEEDS:
    order = np.random.default_rng(seed).permutation(len(raw))  # the raw split: as a shuffle deals the texts
    cuts = np.split(order, [int(0.7 * len(raw)), int(0.8 * len(raw))])
    (train, validation, test), parts = ([raw[i] for i in cut] for cut in cuts), split_labelled(honest, 0.1, 0.2, seed)
    assert not find_leaks(parts._asdict())
    twins = {id(leak.document): leak.twin.label for leak in find_leaks({"test": test, "train": train})}
    dictionary = [twins.get(id(d), "neg") == d.label for d in test]  # twins: test text -> label of its copy
    models, known = (fit(train, validation), fit(*parts[:2])), np.array([id(d) in twins for d in test])
    hits = judge(models[0], test), judge(models[1], parts.test)
    rows.append([dictionary, hits[0], hits[0][known], hits[0][~known], hits[1], *(judge(m, new) for m in models), known])  # fmt: skip
NAMES = ("dictionary", "raw split", "raw, copies", "raw, no copies", "honest split", "new, by raw", "new, by honest", "copies")  # fmt: skip
scores = {name: np.array([np.mean(row[place]) for row in rows]) for place, name in enumerate(NAMES)}  # [seeds]
for name, found in {name: intervals.over_seeds(values) for name, values in scores.items()}.items():
    print(f"{name:15} mean of five splits {found['mean']:.3f}, 95 % interval {found['low']:.3f} to {found['high']:.3f}")
different = len({fold(d.text) for d in train}), len(parts.train)
print(f"different texts in training: {different[0]} in the raw split, {different[1]} in the honest one")
mark = lambda part: [d._replace(text=f"{d.text}:{CLASSES.index(d.label)}") for d in part]
marked = fit(mark(parts.train), mark(parts.validation))
with_label = judge(marked, mark(parts.test)).mean(), judge(marked, new).mean()
print(f"label left in the text: {with_label[0]:.3f} in the test, {with_label[1]:.3f} on new reviews")

# %% [markdown]
# The raw score is a weighted mean, exactly: 0.71 · 0.995 + 0.29 · 0.83 = 0.945. Copies are remembered, not understood; on texts without a copy the
# same model scores what the honest split says and the new reviews confirm. There the raw model is even a shade ahead; its training part holds more
# different texts. The *test* was wrong, not the model. With the label in the text both are: 98 % in the test, and in use worse than without.
# ## How sure? And what an interval does not know
# Each test of seed 0 gets its interval. Then a question that is rarely asked: does "95 %" hold? Let the new reviews be the whole world, so that the
# true score is known. Draw a test of n texts from them, compute the interval, note whether it catches the truth; 300 times. **Predict** how often for
# n = 10. And how often for the macro F1, in a world where one review in ten is negative?


# %%
def coverage(world: np.ndarray, size: int, name: str, trials: int = 300) -> float:
    """Share of tests of `size` texts whose interval of a metric holds its value on all texts of the world."""
    cells = [classification.one_hot(z[world], 2) for z in (answers, probabilities.argmax(1))]  # [texts, classes] each
    metric = lambda rows: lambda w: classification.averages(classification.count(cells[0][rows], cells[1][rows], w))
    caught, true, random = 0, metric(slice(None))(None)[name], np.random.default_rng(size)
    for trial in range(trials):
        test = random.choice(len(world), size, replace=False)
        found = intervals.bootstrap(metric(test), size, resamples=400, seed=trial)[name]
        caught += found["low"] <= true <= found["high"]
    return caught / trials


for name, row in zip(("raw", "honest"), hits, strict=True):
    print(name, intervals.bootstrap(lambda weights, row=row: {"accuracy": weights @ row / len(row)}, len(row)))
answers, probabilities, SIZES = truth(new), models[1](texts(new)), (10, 30, 100, 300)
rare = np.flatnonzero((answers == 1) | (np.cumsum(answers == 0) <= answers.sum() / 9))  # all pos, the first few neg
accuracies = [coverage(np.arange(len(new)), size, "micro_f1") for size in SIZES]  # micro F1 is accuracy here
covered = {"accuracy": accuracies, "macro F1, 1 in 10 negative": [coverage(rare, size, "macro_f1") for size in SIZES]}

# %% [markdown]
# ## Accuracy and F1 disagree: which one do you mean?
# In that world of rare complaints, two rules: always "pos"; the model, which was trained on half and half. **Predict** which has the better accuracy.
# Names are rare too: people, places and organisations in the People's Daily of 1998, a tag per character (B-PER begins a person, I-PER goes on, O is
# no name). Three taggers: no name at all; each character's most frequent tag; a conditional random field. A name is a hit if its kind, its first and
# its last character are right; F1 is made of the counts of names in all texts. Of 100 characters, how many does the first tagger get right?

# %%
rules = {"always pos": np.tile([0.0, 1.0], (len(rare), 1)), "model": probabilities[rare]}
metrics = lambda p: [classification.single_label(answers[rare], p)[name] for name in ("accuracy", "macro_f1")]
judged = {name: metrics(p) for name, p in rules.items()}
complaints = classification.describe_classes(answers[rare], rules["model"], CLASSES)[0]["recall"]
news = split_labelled(clean_labelled(corpora.read("people-daily-ner-zh")[:600])[0], 0.0, 0.3, 0)
units, tags = ([[getattr(d, name) for d in part] for part in (news.train, news.test)] for name in ("units", "label"))
tagged = {"no name": [["O"] * len(row) for row in units[1]]}
for name, fit_tagger in (("most frequent", tagging.fit_most_frequent), ("random field", tagging.fit_field)):
    tagged[name] = fit_tagger(units[0], tags[0])(units[1])
for name, found in tagged.items():
    same = np.concatenate([np.equal(*pair) for pair in zip(tags[1], found, strict=True)]).mean()
    judged[name] = [same, entities.entity_scores(entities.count_entities(tags[1], found))["micro_f1"]]
plt.rcParams["axes.prop_cycle"] = plt.cycler(color=COLOURS)
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.8), dpi=120, layout="constrained")
for spot, (name, colour) in enumerate(zip(NAMES[:-1], (3, 1, 1, 1, 0, 1, 0), strict=True)):  # orange: fitted to raw
    left.plot(spot + np.linspace(-0.2, 0.2, 5), 100 * scores[name], "o", color=COLOURS[colour])
left.set_xticks(range(7), [name.replace(" ", "\n", 1) for name in NAMES[:-1]], fontsize=8)
left.set(ylabel="accuracy (%)", title="One kind of model: where was it tested? Dots: five splits")
middle.plot(range(4), 100 * np.array([*covered.values()]).T, "o-", label=[*covered])
middle.axhline(95, color="grey", linestyle="--", label="what the interval promises")
middle.set_xticks(range(4), SIZES)
middle.set(xlabel="texts in the test", ylabel="the interval catches the truth (% of tests)", title="Does 95 % hold?")
middle.legend(frameon=False, loc="lower right")
for shift, name, row in zip((-0.2, 0.2), ("accuracy", "F1"), np.array([*judged.values()]).T, strict=True):
    right.bar_label(right.bar(np.arange(5) + shift, 100 * row, 0.4, label=name), fmt="%.0f")
right.set_xticks(range(5), [name.replace(" ", "\n", 1) for name in judged])
right.set(ylabel="%", ylim=(0, 118), title="Two rules on rare complaints, three taggers")
right.legend(frameon=False, loc="upper center", ncols=2)
figure.savefig(figure_path("17", "scores.png"))
report("17", {
    "accuracy on paper": naive[0, 0], "macro F1 on paper": naive[0, 1], "2.5.4 on paper": batches / 10, "BLEU on paper": translated[0],
    "BLEU of both": translated[2], "label in the text, test": with_label[0], "label in the text, new": with_label[1], "complaints found": complaints,
    "different texts, raw": different[0], "different texts, honest": different[1],
} | {name: values.mean() for name, values in scores.items()}
  | {f"coverage, {name}, {n} texts": row[spot] for name, row in covered.items() for spot, n in ((0, 10), (3, 300))}
  | {f"{metric}, {name}": value for name, row in judged.items() for metric, value in zip(("accuracy", "F1"), row, strict=True)})  # fmt: skip

# %% [markdown]
# **What to read from the figure.** Left: the raw score mixes what the model had seen (copies) and what it had not; only the second is about reviews.
# The honest split foretells the new ones. The raw test's interval, 93 to 95 %, is narrow, and wrong: **an interval knows of luck, not of leaks.**
# Middle: from 100 texts on, 95 % means about 95 %; with ten it means 84 %, or 58 % for the rare class. A third of such tests hold no complaint at all
# (0.9^10 = 35 %), and what a test lacks, drawing from it will not show. Right: accuracy puts doing nothing above a model that finds 79 % of the
# complaints, and gives 90 % to a tagger that finds no name. Choose the metric by what a mistake costs, before you see a score.
# ## What this toy does not show
# Its new reviews come from the same source; real ones drift to other years and goods. Copies with one word changed pass `fold`. BLEU gives 0 to good
# translations in other words. Five splits share most of their texts: the interval of their mean is too narrow (Nadeau and Bengio 2003). "Beyond human
# experts" (1.8.1) takes an unseen test, humans on the same test, an interval of the *difference* (exercise 3): ask a benchmark (2.7.1) for all three.
# ## Exercises: `minillm lessons check 17`, with `--hints` when stuck
# 1. `macro_f1(labels, predictions, classes)`: of any number of classes, also absent ones (15 minutes, easy).
# 2. `is_held_out(text, share, seed)`: a split that needs no list, keeps copies together and never changes its mind (20 minutes, medium).
# 3. `paired_interval(first, second, draws)`: is the first system better, on the same test? (20 minutes, medium)
# ## Recap
# Clean, count what goes, split by group and class, test once (a run with `[data] labels` does so). Add up first, divide once. Give intervals.
# **Glossary:** duplicate 重复 · leak 数据泄漏 · stratified split 分层划分 · accuracy 准确率 · precision 精确率 · recall 召回率 · bootstrap 自助法
# macro average 宏平均 · confidence interval 置信区间 · coverage 覆盖率 · entity 实体. **Common errors:** copies removed after the split; choosing on
# the test; the label in the text; means of means; accuracy of tags; averages of sentence BLEUs; overlapping intervals read as "no difference".
# **Next:** 18 Sentiment of real reviews, from raw text to F1.
