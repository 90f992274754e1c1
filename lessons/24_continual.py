# %% [markdown]
# # 24 Many tasks, and learning without forgetting
#
# **Sections:** 1.8.2, 1.9.q4, 2.2, 2.2.1, 2.2.2, 2.8, 2.8.2, 2.8.3, 4.8.4, 5.2.2, 5.8.2
#
# - **You will be able to:** mix tasks in exact proportions, read the matrix of accuracies, write EWC's penalty from the Fisher information, say what
#   replay, distillation and adapters hold instead, and set an alarm for texts that are no longer those of training.
# - **Prerequisites:** 19 (transfer learning), 20 (adapters). **Time:** an hour to read; the script takes about 45 s on two cores.
# - **Expected:** accuracy on books 0.78, after hotels 0.61 plain, 0.71 EWC, 0.73 replay, 0.67 LwF; forgetting in the end 0.08, 0.02, 0.02, 0.01. EWC
#   has 0.73 on the newest domain, the others 0.80 and more. Alarms: none in 10 windows of books; then in the 3rd (classifier) and 4th (PSI, KS).
#
# ## The question
# 1.9.q4, 2.2 and 2.2.1 call it transfer: what one task has taught serves the next. 2.8 and 2.8.2 expect one model for many tasks, 4.8.4 wants it to
# go on learning. But a gradient knows the batch of today alone. A model of book reviews that is then tuned on hotels becomes a model of hotels:
# how much of the books is left (catastrophic forgetting: McCloskey and Cohen 1989), and what keeps it (2.8.3)?
# ## The maths
# **Several tasks at once.** Task $k$ has $n_k$ examples; its share of the rows is $p_k = n_k^{1/T} / \sum_j n_j^{1/T}$ (Raffel et al. 2020). T = 1
# takes each example as often as any other, T → ∞ each task. By hand, 900 and 100 examples: T = 1 gives 0.9 and 0.1, T = 2 gives 30 : 10, 0.75 and
# 0.25. Drawn at random, shares are right on average. Here task $k$ has read $\lfloor p_k B t \rfloor$ rows after $t$ steps of $B$ rows: exactly.
# **One after the other.** $R_{ij}$ is the accuracy on task $j$ after task $i$. Backward transfer is the mean of $R_{Tj} - R_{jj}$ over the earlier
# tasks (Lopez-Paz and Ranzato 2017), forgetting the mean of $\max_i R_{ij} - R_{Tj}$.
#
# | method | what is held | needs |
# | --- | --- | --- |
# | EWC (Kirkpatrick et al. 2017) | weights: $\frac{\lambda}{2} \sum_i F_i (\theta_i - \theta^*_i)^2$ | old weights, $F$ |
# | replay | old texts, a fixed share of each batch | a buffer of them |
# | LwF (Li and Hoiem 2017) | the old model's answers to the *new* texts, as soft targets | the old model |
# | adapters (lesson 20) | everything: the base is frozen, each task has a part of its own | to know the task |
#
# $F_i = \mathbb{E}_x \sum_y p(y|x) (\partial \log p(y|x) / \partial \theta_i)^2$ is large where a small step changes the answers. By hand, one weight
# and two classes, $p = \sigma(wx)$: the slopes of $\log p$ and $\log (1-p)$ are $(1-p) x$ and $-p x$, so $F = p (1-p)^2 x^2 + (1-p) p^2 x^2 =
# p (1-p) x^2$. At $p = 0.5$, $x = 2$ that is 1; at $p = 0.99$ it is 0.04: a model that is sure does not need that weight to stand still.

# %%
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt

from minillm import params
from minillm.course.record import figure_path, report
from minillm.data import corpora, mixing, rows
from minillm.data.clean_labelled import clean_labelled
from minillm.evaluation import drift, intervals, transfer
from minillm.models import bert
from minillm.models.contract import bind
from minillm.objectives.distill import distilled, with_old_scores
from minillm.objectives.supervised import classify, head_scores
from minillm.training.optimizer import OptimizerConfig, make_optimizer
from minillm.training.step import init_state, make_gradient, make_train_step
from minillm.tuning import elastic
from minillm.tuning.freeze import full

numbers = {"share by hand, T = 2": mixing.proportions([900, 100], 2.0)[0]}
two_classes = lambda w, x: jax.nn.log_sigmoid(w * x * jnp.array([1.0, -1.0]))  # log p, log (1 - p)
numbers["Fisher by hand"] = float(elastic.fisher_information(two_classes, jnp.zeros(()), jnp.array([2.0])))


def naive_fisher(kernel, features):
    """Softmax regression, class by class: the slope of log p_y is x (1[c = y] - p_c) for each class c."""
    total = np.zeros_like(kernel)
    for x in features:
        p = np.exp(x @ kernel) / np.exp(x @ kernel).sum()
        total += sum(p[y] * np.outer(x, np.eye(len(p))[y] - p) ** 2 for y in range(len(p)))
    return total / len(features)


random = np.random.default_rng(24)
kernel, features = random.normal(size=(3, 4)).astype(np.float32), random.normal(size=(6, 3)).astype(np.float32)
library = elastic.fisher_information(lambda w, x: jax.nn.log_softmax(x @ w), jnp.asarray(kernel), jnp.asarray(features))
assert np.allclose(naive_fisher(kernel, features), library, atol=1e-5)
parts = mixing.whole_parts(mixing.proportions([900, 100], 2.0))
read = np.array([[mixing.row_span(part, 10, step)[1] for part in parts] for step in range(200)])
drawn = np.cumsum(random.multinomial(10, [0.75, 0.25], size=200), axis=0)
wanted = 10 * np.arange(1, 201)[:, None] * np.array([0.75, 0.25])
numbers["rows off, exact"], numbers["rows off, drawn"] = np.abs(read - wanted).max(), np.abs(drawn - wanted).max()

# %% [markdown]
# ## The experiment: reviews of books, then hotels, then laptops
# One source mixes three domains; a review belongs to a domain if it has a word of that domain and none of the others' (a rule of ours: `DOMAINS`
# in `data/packages.py`). Classes and head stay the same, positive or negative. The model is a BERT of one small block over characters, never
# pretrained; 1,200 reviews train each domain, 400 test it. Three seeds.
# **Predict before you run.** (1) After hotels, what is left of the accuracy on books, which was 0.8? (2) LwF never sees a book again: does it help?
# (3) Which method is the best on the *new* domain? (4) What would you give for the best of all, all three at once?

# %%
LENGTH, BATCH, STEPS, SEEDS, TASKS = 40, 32, 120, (0, 1, 2), ("books", "hotels", "laptops")
sources = {task: clean_labelled(corpora.read(f"reviews-zh-{task}"))[0] for task in TASKS}
order = {task: np.random.default_rng(0).permutation(len(documents)) for task, documents in sources.items()}
chosen = {task: [sources[task][place] for place in order[task][:1600]] for task in TASKS}
letters = sorted({letter for task in TASKS for document in chosen[task][400:] for letter in document.text})
CODE = {letter: 3 + number for number, letter in enumerate(letters)}  # 0 pads, 1 and 2 frame a row


def make_rows(documents) -> rows.RowDataset:
    """Characters as ids; one that no training text has is left out."""
    texts = [[CODE[letter] for letter in document.text if letter in CODE] for document in documents]
    labels = np.array([document.label == "pos" for document in documents], np.int32)
    return rows.text_rows(texts, None, labels, LENGTH, rows.Frame(1, 2, 0))


train, test = ({t: make_rows(chosen[t][part]) for t in TASKS} for part in (slice(400, None), slice(400)))
SIZES = {"layers": 1, "width": 48, "heads": 4, "init_scale": 0.1, "dropout": 0.0}
CONFIG = bert.Config(len(CODE) + 3, LENGTH, tasks=("classify",), **SIZES)
MODEL, TABLE = bind(bert, CONFIG), bert.param_specs(CONFIG)
say = lambda weights, batch: head_scores(MODEL, weights, batch, None, "classify")
log_p = lambda weights, row: jax.nn.log_softmax(say(weights, {name: leaf[None] for name, leaf in row.items()})[0])
join = lambda parts: jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)  # several data sets as one
whole = lambda dataset: next(rows.row_evaluation_batches(dataset, len(dataset.tokens)))
asked, fisher = jax.jit(say), jax.jit(lambda weights, batch: elastic.fisher_information(log_p, weights, batch))
plain, held, anchored = full(), elastic.elastic(full(), strength=300.0), elastic.anchored(full())
softened = make_gradient(distilled(classify, 2.0), MODEL, anchored, {"distill": 2.0})
old_answers = with_old_scores(softened, lambda frozen, batch: say(frozen["anchor"], batch))
GRADIENTS = {"plain": (plain, make_gradient(classify, MODEL, plain, {}), {}),
             "EWC": (held, make_gradient(classify, MODEL, held, {}), {}),
             "LwF": (anchored, old_answers, {"distill": 2.0})}  # fmt: skip
OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=3e-3, warmup_steps=10), STEPS, params.decay_mask(TABLE))
STEP = {name: jax.jit(make_train_step(gradient, OPTIMIZER, tuning, factors))
        for name, (tuning, gradient, factors) in GRADIENTS.items()}  # fmt: skip


def learn(name: str, weights: dict, batch_at, seed: int, steps: int = STEPS) -> dict:
    """Trains on with one of the three gradients; weights may hold the Fisher information beside them."""
    trainable, frozen, extra = GRADIENTS[name][0].init(weights, jax.random.key(seed))
    state = init_state(trainable, extra, OPTIMIZER)
    for step in range(steps):
        state, _ = STEP[name](state, frozen, batch_at(step), jax.random.key(seed))
    return state.trainable


def batches(new: rows.RowDataset, seed: int, old: rows.RowDataset | None = None, share: float = 0.0):
    """step -> a batch of which an exact share is old."""
    part, read = round(share * mixing.WHOLE), lambda data: lambda step: rows.row_batch_at(data, seed, step, BATCH)

    def batch_at(step: int) -> dict:
        first, after = mixing.row_span(part, BATCH, step)  # of the old rows; the others are new
        sides = ((new, step * BATCH - first, (step + 1) * BATCH - after), (old, first, after))
        made = [mixing.mixed_rows(read(side), BATCH, (a, z), z - a) for side, a, z in sides if z > a]
        return {name: np.concatenate([one[name] for one in made]) for name in made[0]} | {"index": np.arange(BATCH)}

    return batch_at


def accuracies(weights: dict) -> list[float]:
    """On the test part of each domain."""
    return [float((np.asarray(asked(weights, b)).argmax(-1) == b["labels"]).mean()) for b in map(whole, test.values())]


def sequence(method: str, first: dict, seed: int) -> np.ndarray:
    """R [tasks, tasks]: after each domain, tested on each."""
    weights, found = first, [accuracies(first)]
    for number, task in enumerate(TASKS[1:], start=1):
        past = [jax.tree.map(lambda leaf: leaf[:256], train[old]) for old in TASKS[:number]]
        begin, batch_at = weights, batches(train[task], seed, join(past), 0.25 if method == "replay" else 0.0)
        if method == "EWC":
            terms = [fisher(weights, whole(old)) for old in past]
            begin = weights | {elastic.FISHER: jax.tree.map(lambda *leaves: sum(leaves), *terms)}
        weights = learn("plain" if method == "replay" else method, begin, batch_at, seed)
        found.append(accuracies(weights))
    return np.array(found)


METHODS = ("plain", "EWC", "replay", "LwF")
born = lambda seed: params.init_params(TABLE, jax.random.key(seed))
first = [learn("plain", born(seed), batches(train["books"], seed), seed) for seed in SEEDS]
together = [learn("plain", born(s), batches(join([*train.values()]), s), s) for s in SEEDS]
results = {m: transfer.over_matrices([sequence(m, first[s], s) for s in SEEDS], TASKS) for m in METHODS}
for method, found in results.items():
    means = {"forgetting": found["forgetting"]["mean"], "average": found["average_accuracy"]["mean"],
             "books after hotels": found["matrix"][1][0], "laptops at the end": found["matrix"][2][2]}  # fmt: skip
    numbers |= {f"{method}, {name}": value for name, value in means.items()}
numbers["books after books"] = results["plain"]["matrix"][0][0]
numbers["all at once, average"] = np.mean([accuracies(weights) for weights in together])
forgotten = {method: found["forgetting"]["values"] for method, found in results.items()}
for method in METHODS[1:]:  # seed by seed, with a 95 % interval
    row = intervals.paired_seeds(forgotten["plain"], forgotten[method])
    numbers |= {f"{method} - plain, forgetting, low": row["low"], f"{method} - plain, forgetting, high": row["high"]}

# %% [markdown]
# ## Drift: when should it learn again?
# In service nobody says "hotels now". What is seen without labels is a window of texts: how sure the model is (PSI and KS against texts of training's
# kind), how many characters it does not know, how well a classifier tells the window from the reference. Each threshold is the largest value of
# 19 windows of books that were not trained on, so that one more such window is above it with probability 1/20. Then come 10 windows of books,
# and 10 whose share of hotels grows by a tenth each.

# %%
WINDOW = 40
spare = [sources["books"][place] for place in order["books"][1600:]]
reference, calibrate, stream = spare[:300], spare[300 : 300 + 19 * WINDOW], spare[300 + 19 * WINDOW :][: 15 * WINDOW]
known = {letter for document in chosen["books"][400:] for letter in document.text}
hotels = [sources["hotels"][place] for place in order["hotels"][1600:]]
cut = lambda texts, count: [texts[place * WINDOW : (place + 1) * WINDOW] for place in range(count)]
quiet, after = cut(stream, 10), stream[10 * WINDOW :]
grown = [after[20 * step :][: WINDOW - 4 * step] + hotels[40 * step :][: 4 * step] for step in range(1, 11)]
sure = lambda documents: np.asarray(jax.nn.softmax(asked(first[0], whole(make_rows(documents)))))[:, 1]
usual, texts = sure(reference), [document.text for document in reference]
ids = lambda documents: [[int(letter in known) for letter in document.text] for document in documents]
WATCHED = {
    "PSI": lambda window: drift.stability_index(usual, sure(window), bins=5), "KS": lambda window: drift.distance(usual, sure(window)),
    "unknown characters": lambda window: drift.unknown_rate(ids(window), unknown=0),
    "classifier's AUC": lambda window: drift.classifier_area(texts, [document.text for document in window], folds=3),
}  # fmt: skip
figure, axes = plt.subplots(1, 5, figsize=(17, 4), layout="constrained", width_ratios=[1, 1, 1, 1, 1.6])
for name, statistic in WATCHED.items():
    before, now = [statistic(window) for window in cut(calibrate, 19)], [statistic(window) for window in quiet + grown]
    threshold = drift.alarm_threshold(before, 0.05)
    found = drift.first_alarm(now[10:], threshold)
    numbers[f"false alarms, {name}"] = np.sum(np.array(now[:10]) > threshold)
    numbers[f"windows until the alarm, {name}"] = 11 if found is None else found + 1
    axes[4].plot(range(1, 21), np.array(now) / threshold, "o-", markersize=3, label=name)
for axis, (method, found) in zip(axes, results.items(), strict=False):
    axis.imshow(found["matrix"], vmin=0.4, vmax=0.9)
    for (row, column), value in np.ndenumerate(np.array(found["matrix"])):
        axis.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.65 else "black")
    title = f"{method}: forgets {found['forgetting']['mean']:.2f}"
    moments = [f"after {task}" for task in TASKS] if method == "plain" else [""] * 3
    axis.set(xticks=range(3), yticks=range(3), xticklabels=TASKS, yticklabels=moments, title=title)
axes[4].axhline(1.0, color="black", linestyle="--")
axes[4].axvline(10.5, color="grey", linestyle=":")
axes[4].set(xlabel="window (from the dotted line on, more and more hotels)", ylabel="statistic / threshold")
axes[4].legend(fontsize=8)
figure.savefig(figure_path("24", "forgetting_and_drift.png"), dpi=120)
report("24", numbers)

# %% [markdown]
# ## What to read from the figure
# Rows are moments, columns tests: down the first column one sees the books go. Plain training falls from 0.78 to 0.61 at once, the three others keep
# more. In the end all three forget less, by 0.05 to 0.07; for EWC and replay the interval over seeds leaves out 0, for LwF just not. What they
# pay differs: EWC holds weights that hotels and laptops would like to move, and is behind there; replay and LwF are not. LwF needs no old text:
# new reviews are near enough to the old ones for the old answers to mean something. Laptops even give back a little of hotels. All three
# domains at once, with as many steps as one of them had, are no better in the mean than replay with three times the steps. Right: the classifier
# sees the hotels first, the model's own confidence a window later. Both are silent on ten windows of books, which proves little: the rate is at
# most 1 in 20 by construction. Unknown characters hardly move, since all domains are written alike.
# ## What this toy does not show
# - Which method is best: strength, share and buffer were chosen after a look at these very domains, and the model was never pretrained.
# - What pretraining changes: `minillm lab configs/continual.toml` begins with a pretrained base. Average accuracy there: plain 0.73, EWC 0.74, replay
#   0.77, LwF 0.76; an adapter per domain (5 % of the parameters) 0.67: it forgets nothing, and learns less; a whole model per domain 0.81.
# - New *classes*, where EWC and LwF are known to fail (van de Ven and Tolias 2019). And a drift of the labels alone, which no statistic here can see.
# ## Exercises: `minillm lessons check 24`, with `--hints` for help
# 1. `rows_of_step(counts, temperature, size, step)` · 20 minutes, medium · how many rows of each task a step reads, so that no row is ever owed.
# 2. `fisher_diagonal(features, kernel)` · 20 minutes, medium · softmax regression's Fisher information, without a loop over classes.
# 3. `backward_transfer(matrix)` · 10 minutes, easy · what later tasks did to earlier ones.
# ## Recap
# Tasks at once share a body and mix by $n_k^{1/T}$, in exact counts. Tasks in turn forget; EWC holds weights, replay texts, LwF answers, adapters
# all. The matrix $R$ says what each did. Unlabelled windows, and a threshold from windows in order, say when the world has moved.
# - **Glossary:** multi-task learning 多任务学习 · continual learning 持续学习 · catastrophic forgetting 灾难性遗忘 · Fisher information 费舍尔信息 ·
#   replay 回放 · distillation 蒸馏 · backward transfer 后向迁移 · drift 漂移 · false alarm 误报 · temperature 温度
# - **Common errors:** the Fisher information of labels, not of the model's own answers · the anchor is the live array · the last task's accuracy
#   reported alone · a threshold set on the windows that it judges · the buffer drawn from test texts.
# - **Next:** lesson 25, names, relations and events.
