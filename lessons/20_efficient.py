# %% [markdown]
# # 20 Few parameters: Adapter, prefix, prompt, LoRA, AdaLoRA
#
# **Sections:** 1.9, 1.9.q1, 1.9.q2, 2.2.2, 2.7.3, 2.8.2, 2.8.4, 4.3.4, 4.9.q1, 5.2, 5.2.1, 5.2.2, 5.7.3, 5.8.2, 5.8.4
#
# - **You will be able to:** write each method as one equation, LoRA and an adapter as code equal to the library's, say which of them begin as the
#   pretrained model and why, merge, save and switch them, and judge what they cost against what they score.
# - **Prerequisites:** 06 (attention), 08 (GPT). **Time:** an hour to read; the script takes about 50 s on two cores.
# - **Expected:** bits per byte of a held-out manual: base, not tuned 4.22 · prompt 4.12, prefix 3.73, BitFit 3.50, head alone 3.23, adapter 3.22,
#   AdaLoRA 3.20, LoRA 3.17 · full 2.87 · from scratch 3.82 · 5-grams 2.58. LoRA trains 3.4 % of the parameters.
#
# ## The question
# A pretrained model serves a hundred tasks (4.3.4). Fine-tuning all of it makes a hundred models, each as large, and while it trains, Adam keeps
# two more numbers per weight. Must all of them move (4.9.q1)? Parameter-efficient tuning (PEFT: 2.2.2, 5.2.1, 5.2.2) freezes the base and trains a
# small part. Prefix tuning and LoRA, which 2.8.2 and 5.8.2 expect, are of 2021.
# 1.9.q2 names three such methods. The adapter is one (2.7.3 names its paper). Prefix tuning is one too, but it learns from labelled examples: it is
# not zero-shot, which means no training at all (lesson 21). Self-training gets by with fewer *labels*, not with fewer parameters (lesson 23).
# 1.9.q1 hopes that few parameters overfit less: lesson 22. 5.7.3 lists AdaLoRA twice, under a title that is not its own. 2.8.4 and 5.8.4 want
# tuning that is cheap in parameters and in *computation*: the gradient still runs through all frozen layers.
# ## The maths: one equation per method ($x$ enters a layer, $W$ is frozen)
#
# | method | equation | new, trained |
# | --- | --- | --- |
# | Adapter (Houlsby et al. 2019) | $y = f(x) + U\,g(D f(x) + a) + b$, behind attention and behind feed-forward $f$ | $D, a, U, b$ |
# | (Pfeiffer et al. 2020) | the same, behind the feed-forward alone | half of it |
# | Prefix (Li and Liang 2021) | $\mathrm{softmax}(q [P_k; K]^T / \sqrt d)\,[P_v; V]$, in every layer | $P_k, P_v$ |
# | Prompt (Lester et al. 2021) | $[P; E(x_1), \dots, E(x_n)]$ enters the first layer | $P$ |
# | LoRA (Hu et al. 2021) | $y = x W + \frac{\alpha}{r} (x A) B$ | $A, B$ of rank $r$ |
# | AdaLoRA (Zhang et al. 2023) | $y = x W + \frac{\alpha}{r} (x P \Lambda) Q$; the least important $\lambda_i$ are set to 0 | $P, \Lambda, Q$ |
# | BitFit (Ben Zaken et al. 2022) | $y = x W + b$ | $b$, which was there |
#
# AdaLoRA keeps $P$ and $Q$ nearly orthogonal by a penalty, so that $\lambda_i$ are nearly singular values. By hand, LoRA of rank 1 at $\alpha = 2$:
# x = (1, 2), W = identity, A = (1, 0) standing, B = (0, 3). x A = 1, so y = (1, 2) + 2 (0, 3) = (1, 8). Merged: W + 2 A B = [[1, 6], [0, 1]], and x
# times that is (1, 2 + 6) = (1, 8) again.
# ## Where they begin
# With $B = 0$ LoRA's product is zero, whatever $A$ is; an adapter's $U$ and $b$ are zero too, and AdaLoRA's $\Lambda$: training starts exactly at
# the pretrained model. Why not both factors? $\partial L / \partial B = \frac{\alpha}{r} (x A)^T \frac{\partial L}{\partial y}$ is zero where $A$
# is, $\partial L / \partial A$ where $B$ is: nothing would ever move. A prefix has no such place: even where its keys score 0 and its values are
# zeros, it takes its share $e^0$ of the softmax. A prompt's vectors are words that nobody wrote.

# %%
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt

from minillm import params
from minillm.course.record import figure_path, report
from minillm.data import batches, corpora
from minillm.evaluation import ngram
from minillm.models import gpt
from minillm.models.contract import bind
from minillm.nn import adapter, linear
from minillm.objectives.causal import causal
from minillm.sections.experiment import TuningConfig
from minillm.training.optimizer import OptimizerConfig, make_optimizer
from minillm.training.step import init_state, make_eval_step, make_gradient, make_train_step
from minillm.tuning import make_tuning, saved
from minillm.tuning.adalora import live_ranks
from minillm.tuning.lora import merge


def naive_lora(x, kernel, down, up, alpha):
    """One row at a time: x W + alpha / r (x A) B. x [n, inputs], down [inputs, r], up [r, outputs]."""
    made = []
    for row in x:
        low = [sum(row[i] * down[i, r] for i in range(len(row))) for r in range(len(up))]
        made.append(row @ kernel + alpha / len(low) * sum(low[r] * up[r] for r in range(len(low))))
    return np.array(made)


def naive_adapter(p, x):
    """Down, GELU (its tanh form), up, and what came in is added."""
    bent = x @ p["down"]["kernel"] + p["down"]["bias"]
    bent = 0.5 * bent * (1 + np.tanh((2 / np.pi) ** 0.5 * (bent + 0.044715 * bent**3)))
    return x + bent @ p["up"]["kernel"] + p["up"]["bias"]


by_hand = naive_lora(np.array([[1.0, 2.0]]), np.eye(2), np.array([[1.0], [0.0]]), np.array([[0.0, 3.0]]), alpha=2.0)
numbers = {"LoRA on paper": by_hand[0, 1]}
random = np.random.default_rng(20)
normal = lambda *shape: random.normal(size=shape).astype(np.float32)
x, kernel, down, up = normal(5, 6), normal(6, 4), normal(6, 3), normal(3, 4)
low_rank = lambda *pair: {"kernel": linear.LowRank(*map(jnp.asarray, (kernel, *pair)), scale=16 / 3)}
assert np.allclose(naive_lora(x, kernel, down, up, 16.0), linear.linear(low_rank(down, up), x), atol=1e-4)
assert np.allclose(x @ merge(low_rank(down, up))["kernel"], linear.linear(low_rank(down, up), x), atol=1e-4)
bottleneck = {"down": {"kernel": normal(6, 2), "bias": normal(2)}, "up": {"kernel": normal(2, 6), "bias": normal(6)}}
assert np.allclose(naive_adapter(bottleneck, x), adapter.adapt(bottleneck, x), atol=1e-5)
slope = jax.grad(lambda pair: (linear.linear(low_rank(*pair), x) ** 2).sum())
sizes = lambda down, up: [float(jnp.abs(gradient).max()) for gradient in slope((jnp.asarray(down), jnp.asarray(up)))]
assert sizes(0 * down, 0 * up) == [0.0, 0.0]  # it will never learn
assert sizes(down, 0 * up)[0] == 0.0 < sizes(down, 0 * up)[1]  # B moves first, then A has a gradient

# %% [markdown]
# ## The experiment: a model of news learns to write a manual
# The base is a small GPT over bytes (lesson 08), pretrained for a few seconds on news articles; its output layer is a kernel of its own. The task:
# Python's language reference, of which it gets 60,000 bytes; the score: bits per byte of held-out topics. No label and no new head is needed here;
# a classifier's head would train beside every method (lesson 29), and the same rows stand beside the kernels of a BERT, a T5 or a ViT (5.2.1).
# `head alone` trains the output layer on frozen features. `from scratch` shows what pretraining was worth. 150 steps of 16 rows; three seeds (of
# new rows and of the order of the text; the base is one). Beside them 5-grams that counted the same 60,000 bytes.
# **Predict before you run.** (1) Before the first step, which methods have moved the base's score? (2) How large a part of the parameters does LoRA
# train, and where does its score lie between the untuned base and full? (3) Is the order of scores that of the parameters?

# %%
LENGTH, BATCH, PRETRAIN, STEPS, SEEDS = 32, 16, 2000, 150, (0, 1, 2)
CONFIG = gpt.Config(256, LENGTH + 8, layers=2, width=64, heads=4, tied=False, init_scale=0.05, scan=True)
MODEL, TABLE, KERNELS = bind(gpt, CONFIG), gpt.param_specs(CONFIG), ("blocks/*/kernel",)
TOPICS = ("typesseq", "string-methods", "objects", "import", "with", "try", "imaginary")  # held out
encode = lambda text: np.frombuffer(text.encode(), np.uint8).astype(np.int32)
articles = [document.text.partition("\n") for document in corpora.read("bbc-news")]
manual = corpora.read("python-docs")
join = lambda held: encode("\n".join(d.text for d in manual if (d.name in TOPICS) == held))
# no headline twice, or copies would stand in both parts
titles = list(dict.fromkeys(headline for headline, _, _ in articles))
headlines = [encode("\n".join(row for i, row in enumerate(titles) if (i % 5 == 0) == held)) for held in (False, True)]
TEXTS = {"manual": (join(False)[:60_000], join(True)[:20_000]), "headlines": headlines}  # (training, test) bytes
windows = lambda text: list(batches.evaluation_batches([text], LENGTH, 100, stride=16))  # at least 16 bytes of context
tests = {name: windows(test) for name, (_, test) in TEXTS.items()}
streams = {name: batches.make_dataset([train], LENGTH) for name, (train, _) in TEXTS.items()}
streams["news"] = batches.make_dataset([encode("\n".join(body for _, _, body in articles))], LENGTH + 8)  # and a prompt
SECTIONS = {
    "full": TuningConfig(), "head alone": TuningConfig("freeze", freeze=tuple(path for path in TABLE if path != "head/kernel")),
    "prompt": TuningConfig("prompt"), "BitFit": TuningConfig("bitfit"), "prefix": TuningConfig("prefix"),
    "adapter": TuningConfig("adapter", adapter_size=8), "LoRA": TuningConfig("lora", targets=KERNELS, rank=2),
    "AdaLoRA": TuningConfig("adalora", targets=KERNELS, rank=4, target_rank=2.0),
}  # fmt: skip
RATES = {"full": 3e-3, "prompt": 0.1, "prefix": 0.1}  # of the others 0.01; the prompt's paper takes 0.3


def compile_method(section: TuningConfig, steps: int = STEPS):
    """-> run(seed, base, data) -> (state, frozen, AdaLoRA's ranks along the way), and bits(trainable, frozen, rows)."""
    tuning = make_tuning(section, heads=(), steps=steps)
    config = OptimizerConfig(learning_rate=RATES.get(section.method, 1e-2), warmup_steps=10)
    optimizer = make_optimizer(config, steps, params.decay_mask(tuning.specs(TABLE)))
    train_step = jax.jit(make_train_step(make_gradient(causal, MODEL, tuning, {}), optimizer, tuning, {}))
    evaluate = jax.jit(make_eval_step(causal, MODEL, tuning))

    def run(seed: int, base: dict, data: batches.TokenDataset, steps: int = steps):
        trainable, frozen, extra = tuning.init(base, jax.random.key(seed))
        state, ranks = init_state(trainable, extra, optimizer), []
        for step in range(steps):
            state, _ = train_step(state, frozen, batches.batch_at(data, seed, step, BATCH), jax.random.key(seed))
            ranks += [live_ranks(state.extra)] if "live" in state.extra and step % 10 == 9 else []
        return state, frozen, ranks

    def bits(trainable, frozen, rows):
        sums = [evaluate(trainable, frozen, batch, {})[0]["nll"] for batch in rows]  # (loss, targets) of each
        return float(np.divide(*np.sum(sums, axis=0)) / np.log(2.0))

    return run, bits


size = lambda tree, of="size": sum(getattr(leaf, of) for leaf in jax.tree.leaves(tree))
born = lambda seed: params.init_params(TABLE, jax.random.key(seed))
base = compile_method(TuningConfig(), PRETRAIN)[0](0, born(0), streams["news"])[0].trainable
methods, runs, scores, trained, memory = {}, {}, {}, {}, {}
for name, section in SECTIONS.items():
    run, bits = compile_method(section)
    methods |= {name: (run, bits)} if name in ("full", "LoRA") else {}
    start, frozen, _ = run(0, base, streams["manual"], steps=0)
    numbers[f"bits at the start, {name}"] = bits(start.trainable, frozen, tests["manual"])
    trained[name], memory[name] = size(start.trainable), size(start.optimizer, "nbytes")
    runs[name] = [run(seed, base, streams["manual"]) for seed in SEEDS]
    scores[name] = [bits(state.trainable, frozen, tests["manual"]) for state, frozen, _ in runs[name]]
run_full, bits_full = methods["full"]
scratch = [run_full(seed, born(seed), streams["manual"])[0].trainable for seed in SEEDS]
scores["from scratch"] = [bits_full(trainable, {}, tests["manual"]) for trainable in scratch]
moved = [
    name for name in SECTIONS if abs(numbers[f"bits at the start, {name}"] - numbers["bits at the start, full"]) > 1e-3
]
assert moved == ["prompt", "prefix"]
counts = ngram.fit([TEXTS["manual"][0]], 5, 256)
scores["5-grams"] = [-ngram.log_probabilities(counts, TEXTS["manual"][1]).mean() / np.log(2.0)]
numbers |= {f"bits, {name}": np.mean(found) for name, found in scores.items()}
numbers |= {f"trained, {name}": count for name, count in trained.items()}
numbers["Adam's memory, LoRA / full"] = memory["LoRA"] / memory["full"]

# %% [markdown]
# ## Merge, save, switch
# Merged into its kernels, LoRA costs nothing when the model is used. An adapter, a prefix and a prompt cannot be merged: $U g(D f(x))$ is no
# product with $x$, and a prefix stands in a softmax. One keeps a small file per task: the leaves that were trained, and the hash of the base that
# they belong to. The second task here: headlines.

# %%
run, bits = methods["LoRA"]
state, frozen, _ = runs["LoRA"][0]
merged = merge(make_tuning(SECTIONS["LoRA"], heads=(), steps=STEPS).attach(state.trainable, frozen))
numbers["merged less unmerged, bits"] = bits_full(merged, {}, tests["manual"]) - scores["LoRA"][0]
second, _, _ = run(0, base, streams["headlines"])
files = {name: figure_path("20", f"{name}.safetensors") for name in TEXTS}
for (name, file), trainable in zip(files.items(), (state.trainable, second.trainable), strict=True):
    saved.save_adapter(file, trainable, frozen, SECTIONS["LoRA"], {"text": name})
kept = {name: saved.load_adapter(file, frozen)[0] for name, file in files.items()}  # both beside one base
numbers |= {f"adapter {a} on {b}": bits(kept[a], frozen, tests[b]) for a in TEXTS for b in TEXTS}
numbers["base on headlines"] = bits_full(base, {}, tests["headlines"])
assert numbers["adapter manual on manual"] == scores["LoRA"][0]  # switched back, to the bit
assert numbers["adapter manual on headlines"] > numbers["base on headlines"]  # learned for one text, lost for another
numbers["bytes, file / base"] = files["manual"].stat().st_size / size(base, "nbytes")
path = runs["AdaLoRA"][0][2]
ends = np.array([[*run[2][-1].values()] for run in runs["AdaLoRA"]])  # [seeds, kernels, layers]
numbers |= {"AdaLoRA, live values": ends[0].sum(), "AdaLoRA, spread of ranks": np.ptp(ends, axis=(1, 2)).mean()}
figure, (left, panel) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
for name, count in (trained | {"from scratch": trained["full"]}).items():
    low, middle, high = min(scores[name]), np.mean(scores[name]), max(scores[name])
    left.errorbar(count, middle, [[middle - low], [high - middle]], fmt="o", capsize=3)
    side = (5, -12 if "LoRA" in name else 4)
    left.annotate(name, (count, middle), side, textcoords="offset points", fontsize=9)
for name, height in (("base, not tuned", numbers["bits at the start, full"]), ("5-grams", numbers["bits, 5-grams"])):
    left.axhline(height, color="grey", linestyle="--" if name == "5-grams" else ":", label=name)
left.set(xscale="log", xlabel="parameters that train", ylabel="bits per byte, held-out manual", xlim=(300, 1e6))
left.secondary_xaxis("top", functions=(lambda n: n / 128, lambda kib: 128 * kib)).set_xlabel("Adam's moments (KiB)")
left.legend()
for name in path[0]:
    panel.plot(range(0, STEPS + 1, 10), [8, *(sum(ranks[name]) for ranks in path)], "o-", label=name[7:-7])
panel.set(
    xlabel="step", ylabel="live singular values", ylim=(-0.5, 11), title="AdaLoRA: where the budget goes (seed 0)"
)
panel.legend(loc="upper center", ncols=3)
figure.savefig(figure_path("20", "parameters_and_scores.png"), dpi=120)
report("20", numbers)

# %% [markdown]
# ## What to read from the figure
# Left: with 3 % of the weights LoRA and the adapter go about three quarters of the way from the base to full tuning. The order is not that of the
# numbers: BitFit trains less than a prefix and gains more; the head has four times LoRA's parameters, but features that cannot move. A prompt gains
# least. Pretraining is worth more than free weights: from scratch ends behind LoRA. And 5-grams that counted the same bytes beat them all. Right:
# AdaLoRA's budget falls from 48 values to 24, and of kernels that began alike some keep (nearly) all 4, some (nearly) none. Which ones? The adapter
# of the manual makes the base worse at headlines: switch it off there.
# ## What this toy does not show
# - Which method is best: one rate each (raised for prompt and prefix after a look at these very scores), one base of two layers. See lesson 29.
# - Time (the frozen weights still compute), and that prompts catch up in models of billions of parameters, as their paper found.
# ## Exercises: `minillm lessons check 20`, with `--hints` for help
# 1. `lora_start(inputs, outputs, rank, generator)` · 10 minutes, easy · factors whose product is nothing and whose gradient is something.
# 2. `switch(kernel, off, on, alpha)` · 20 minutes, medium · take one merged adapter out of a kernel, put another in.
# 3. `prefix_attention(query, key, value, mask, prefix_key, prefix_value)` · 25 minutes, medium · the keys grow, and with them the mask.
# ## Recap
# PEFT freezes the base and trains rows beside it, or its biases. Whose last factor is zero starts as the base. LoRA merges, adapters and prefixes
# stay. What is saved is a file of the small part, bound to its base by a hash.
# - **Glossary:** parameter-efficient fine-tuning 参数高效微调 · adapter 适配器 · prefix tuning 前缀微调 · prompt tuning 提示微调 ·
#   low-rank adaptation 低秩适应 · rank 秩 · singular value 奇异值 · bias 偏置 · frozen 冻结 · bottleneck 瓶颈
# - **Common errors:** both factors zero (never learns) · alpha not divided by the rank (another rank, another rate) · merged twice · the mask not
#   grown with the prefix · the new head left frozen.
# - **Next:** lesson 21, prompting: no training at all.
