# %% [markdown]
# # 30 Reproducible experiments
#
# **Sections:** 2.7.2, 4.2.1, 4.5.1.1, 4.5.2.2, 5.5.1, 5.7.2
#
# **You will be able to:** say what the bits of a run depend on, survive a kill, detect a flipped bit and a forged log, tell a difference from luck.
#
# **Prerequisites:** 03 (gradients), 08 (GPT). **Time:** 50 s on two cores; 45 minutes of reading.
#
# **Expected:** 1,000 orders of 1,000 numbers give about 35 sums. A resumed run equals the straight one: parameters to the bit, and all 600 lines. Of
# a forged log step 7 is named. With three seeds ± 1.96 standard errors hold the truth 81 % of the time. One seed of each of two settings orders them
# wrongly about once in four.

# %% [markdown]
# ## The question
# Somebody runs your code and gets another number. A bug, another library, another machine, or luck? Trust has two levels. **The same bits**:
# repeated, this run gives this number exactly, so every surprise has a cause that can be found: engineering (4.2.1). **The same conclusion**: other
# seeds give other numbers, yet the claim stands: statistics.
# ## Why bits differ: addition is not associative
# float32 keeps 24 binary digits. With $u = 2^{-24}$, half a unit in the last place of 1 (ties round to an even last digit), by hand:
#
#     (1 + u) + u = 1 + u = 1          1 + (u + u) = 1 + 2u = 1.00000012
#
# A sum of n numbers has a rounding error of at most about $(n - 1) \, u \sum |x_i|$; *which* one depends on the order, which follows from shapes,
# versions, kind of processor, number of threads and devices. A run repeats to the bit where **all** of these, the config and the seed are equal.

# %%
import json
import shutil
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import jax
import numpy as np

one, u = np.float32(1.0), np.float32(2.0**-24)
assert (one + u) + u == one < one + (u + u)
random = np.random.default_rng(0)
values = random.normal(size=1000).astype(np.float32)
sums = {float(np.add.accumulate(random.permutation(values))[-1]) for _ in range(1000)}  # float32 at every step
print(f"{len(sums)} sums of the same numbers, from {min(sums):.6f} to {max(sums):.6f}")
assert max(sums) - min(sums) < 2 * 999 * u * np.abs(values).sum()

# %% [markdown]
# ## Randomness without a carried generator
# 4.5.2.2 sets `seed = 42` and never uses it: a seed does something only where it is passed on. One generator that everybody draws from is still
# fragile: a kill loses its place, and one more draw anywhere moves all that follow. Here a batch is a **pure function of (seed, step)**, so is the
# dropout key, `fold_in(key(seed), step)`, and a parameter's key follows from its name. Nothing is carried, so nothing must be saved.
# ## A log that cannot be edited quietly
# Each line has hashes of what a step saw and made, and one over itself and the line before: a chain. By hand, equal to the library's:


# %%
from minillm.data import batches, synthetic
from minillm.training import checkpoint, provenance

generator, restarted = np.random.default_rng(42), np.random.default_rng(42)  # restarted: killed after three steps
carried = [generator.integers(100) for _ in range(6)]
assert [restarted.integers(100) for _ in range(3)] == carried[:3] != carried[3:]  # old batches again, and no error
dataset = batches.make_dataset([np.arange(1000, dtype=np.int32)], length=9)
third, second, again = (batches.batch_at(dataset, 42, step, 4)["tokens"].tolist() for step in (3, 2, 3))
assert third == again != second  # in any order, as often as you like


def naive_record(previous: str, step: int, batch: str, key: str, loss: float) -> dict:
    """One line: chain = sha256(chain of the line before + this line, keys sorted, no spaces)."""
    line = {"step": step, "batch": batch, "key": key, "loss": f"{np.float32(loss).view(np.uint32):08x}"}  # all 32 bits
    text = json.dumps(line, sort_keys=True, separators=(",", ":"))
    return line | {"chain": sha256((previous + text).encode()).hexdigest()}


chain = provenance.START
for step, loss in enumerate((2.5, 1.25, 0.1), start=1):
    line = naive_record(chain, step, "b" * 16, "k" * 16, loss)
    assert line == provenance.record(chain, step, "b" * 16, "k" * 16, loss)
    chain = line["chain"]

# %% [markdown]
# ## Predict before you run
# A run of 600 steps saves a checkpoint every 50. After step 150 it is killed (SIGKILL: no chance to clean up). Its log has lines beyond the newest
# checkpoint. What should `--resume` do with them? Will the parameters equal those of a run that nobody killed, to the last bit?
#
# A run's folder is its tracker (2.7.2, 5.7.2), without a server: config, metrics, log, checkpoints, report, and a manifest with versions, processor,
# threads, hashes of the data. (4.5.1.1 installs without versions; 5.5.1 makes the virtual environment *after* installing: make it first, then pin.)

# %%
from minillm import config as configs
from minillm.course.record import figure_path, report
from minillm.errors import UserError
from minillm.experiment.run import run
from minillm.experiment.verify import verify

SETTINGS = ("train.steps=600", "train.checkpoint_every=50", "train.hash_every=50", "train.evaluate_every=300",
            "train.batch_size=8", "model.layers=1", "model.width=16", "model.heads=2")  # fmt: skip
shutil.rmtree(figure_path("30", "runs"), ignore_errors=True)
folders = [figure_path("30", "runs") / name for name in ("straight", "killed")]
experiment, quiet = configs.load(Path("configs/copy.toml"), SETTINGS), lambda *anything: None
straight, log = run(experiment, folders[0], False, quiet, quiet), folders[1] / "provenance.jsonl"
options = [part for setting in SETTINGS for part in ("--set", setting)]
command = [sys.executable, "-m", "minillm.cli", "run", "configs/copy.toml", *options, "--out", str(folders[1])]
with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
    while process.poll() is None and not (log.exists() and len(log.read_bytes().splitlines()) > 150):
        time.sleep(0.005)
    process.kill()
assert process.returncode == -9
print(f"killed: {len(log.read_bytes().splitlines())} lines, checkpoints {checkpoint.steps(folders[1] / 'checkpoints')}")
resumed = run(experiment, folders[1], True, quiet, quiet)
logs = [(folder / "provenance.jsonl").read_bytes() for folder in folders]
assert resumed["parameter_hash"] == straight["parameter_hash"] and logs[0] == logs[1]  # noqa: PT018
print((folders[0] / "manifest.json").read_text())

# %% [markdown]
# The lines after the checkpoint are cut, the steps run again, and since batch and key depend on the step alone, they write the same lines.
# ## One flipped bit, one changed line, one careful forger
# float32 1.0 is 0x3F800000. Flip bit 30 and it is infinity; flip bit 0 and it is 1.00000012, which nobody would notice, and a plain file loads
# without a word. A checkpoint with hashes refuses, and names the leaf. A changed line breaks the log's chain. A forger who recomputes all later
# hashes has an unbroken chain again; but `minillm verify RUN` *trains again* and compares.


# %%
def refusal(action, *arguments) -> str:
    """What the library says when it refuses, printed too."""
    try:
        action(*arguments)
    except UserError as error:
        print(error)
        return str(error)
    raise AssertionError("accepted")


assert np.uint32(0x3F800000 ^ 1 << 30).view(np.float32) == np.inf
newest, leaf = folders[1] / "checkpoints/step_00000600", "trainable/blocks/attention/query/kernel"
victim = max((newest / "arrays" / leaf.replace("/", ".")).iterdir(), key=lambda path: path.stat().st_size)
sound = victim.read_bytes()
victim.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
assert f"leaf {leaf}" in refusal(checkpoint.verify, newest.parent, 600)
victim.write_bytes(sound)
rows = provenance.read(log)
log.write_bytes(logs[1].replace(rows[6]["loss"].encode(), b"3dcccccd"))  # step 7 had a loss of 0.1, honestly
assert "provenance.jsonl:7" in refusal(provenance.read, log)
log.unlink()
chain = provenance.START
for row in rows:
    loss = 0.1 if row["step"] == 7 else np.uint32(int(row["loss"], 16)).view(np.float32)
    row = provenance.record(chain, row["step"], row["batch"], row["key"], loss, row.get("parameters"))
    provenance.append(log, row)
    chain = row["chain"]
assert len(provenance.read(log)) == 600  # the chain holds
print("forged:", (found := verify(folders[1], 20, quiet))["verdict"])

# %% [markdown]
# ## Equal bits are not a claim: seeds
# Nobody cares about seed 0. Repeat with n seeds: mean $m$, standard deviation $s$ (dividing by n - 1), and the interval $m \pm t_{n-1} \, s /
# \sqrt{n}$, which holds the true mean in 95 % of such experiments, if the values are roughly normal. By hand, for losses 1, 2, 3: m = 2, s = 1, t =
# 4.303, so 2 ± 2.48. **Predict:** with the normal distribution's 1.96 instead of t, how often do three seeds catch the truth? Then 20 seeds of three
# settings of a small GPT on the copy task, stopped while it learns: learned positions, rotary ones, and learned ones at a rate 15 % higher. They are
# compared **seed by seed**, on the same data.

# %%
from matplotlib import pyplot as plt

from minillm import params
from minillm.models import gpt
from minillm.models.contract import bind
from minillm.objectives.causal import causal
from minillm.report.plot import COLOURS
from minillm.training.optimizer import OptimizerConfig, make_optimizer
from minillm.training.step import init_state, make_gradient, make_train_step
from minillm.tuning.freeze import full

STEPS, SEEDS, T95 = 100, 20, {2: 4.303, 4: 2.776, 9: 2.262, 19: 2.093}  # Student's t: n - 1 -> factor, from any table


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half width of the 95 % interval."""
    return values.mean(), T95[len(values) - 1] * values.std(ddof=1) / np.sqrt(len(values))


assert np.allclose(interval(np.arange(1.0, 4.0)), (2.0, 2.484), atol=1e-3)
draws = random.normal(size=(20_000, 3))
errors = np.abs(draws.mean(1)) / (draws.std(1, ddof=1) / np.sqrt(3))  # in standard errors
caught = [float((errors < factor).mean()) for factor in (1.96, T95[2])]
copies = lambda seed: [synthetic.copy_batch(seed, step, 32, 4, 6) for step in range(STEPS)]
training = [jax.tree.map(lambda *leaves: np.stack(leaves), *copies(seed)) for seed in range(SEEDS)]
held_out = synthetic.copy_batch(0, 0, 512, 4, 6, split="validation")


def final_losses(position: str, rate: float) -> np.ndarray:
    """Held-out loss of every seed, [seeds]."""
    config = gpt.Config(vocabulary=4 + 6, context=10, layers=2, width=32, heads=2, position=position)
    specs, model = gpt.param_specs(config), bind(gpt, config)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=rate, warmup_steps=20), STEPS, params.decay_mask(specs))
    step = make_train_step(make_gradient(causal, model, full(), {}), optimizer, full(), {})

    @jax.jit
    def train(key, data):
        state = init_state(params.init_params(specs, key), {}, optimizer)
        state = jax.lax.scan(lambda state, batch: step(state, {}, batch, key), state, data)[0]
        return causal(model, state.trainable, held_out).sums["loss"] / held_out["weights"].sum()

    return np.array([train(jax.random.key(seed), training[seed]) for seed in range(SEEDS)])


learned, rotary, faster = final_losses("learned", 3e-3), final_losses("rotary", 3e-3), final_losses("learned", 3.45e-3)
gaps = {"learned - rotary": learned - rotary, "learned - learned at rate + 15 %": learned - faster}
inverted = float((faster[:, None] > learned).mean())  # one seed of each: all 400 pairs
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), dpi=120, layout="constrained")
for place, (losses, colour) in enumerate(zip((learned, rotary, faster), COLOURS, strict=False)):
    left.plot(place + np.linspace(-0.15, 0.15, SEEDS), losses, "o", color=colour, alpha=0.5, markersize=4)
    left.errorbar(place + 0.3, *interval(losses), fmt="s", color=colour, capsize=4)
left.set_xticks(range(3), ["learned", "rotary", "learned,\nrate + 15 %"])
left.set(ylabel="held-out loss (nats per token)", title="20 seeds each; squares: mean and 95 % interval")
for place, ((name, gap), colour) in enumerate(zip(gaps.items(), COLOURS[1:], strict=False)):
    means, widths = np.array([interval(gap[:n]) for n in (3, 5, 10, 20)]).T
    right.errorbar(np.arange(4) + 0.16 * place - 0.08, means, widths, fmt="s", color=colour, capsize=4, label=name)
right.axhline(0.0, color="grey", linestyle="--", linewidth=1)
right.set_xticks(range(4), [3, 5, 10, 20])
right.set(xlabel="seeds", ylabel="difference of losses", title="95 % interval of the difference, seed by seed")
right.legend(frameon=False, loc="lower right")
figure.savefig(figure_path("30", "seeds.png"))
report("30", {
    "different sums of 1,000 numbers": len(sums), "three seeds, caught by 1.96": caught[0], "three seeds, caught by t": caught[1],
    "resumed equals straight, parameters": resumed["parameter_hash"] == straight["parameter_hash"],
    "resumed equals straight, lines": len(set(logs[0].splitlines()) & set(logs[1].splitlines())), "forged step": found["step"],
    "loss, learned": learned.mean(), "loss, rotary": rotary.mean(), "loss, rate + 15 %": faster.mean(),
    "deviation over seeds, learned": learned.std(ddof=1), "pairs of seeds that invert the order": inverted,
})  # fmt: skip

# %% [markdown]
# **What to read from the figure.** Left: the seeds of one setting differ more than the means of two. Right: three seeds decide nothing. Seed by seed
# the higher rate is better beyond doubt, although the intervals on the left touch: both runs of a pair saw the same data, whose luck cancels. For
# rotary positions, in the run behind this text, ten seeds showed a difference and twenty do not: who adds seeds until the interval leaves 0 finds one
# sooner or later. Fix n first. (Another processor rounds otherwise and draws other dots; the conclusions should stand.)
# ## What this toy does not show
# Bits across machines: the manifest says what differed, not how much it matters. Hashes prove that a record was not changed, not that the experiment
# was well chosen: the best of many tried settings fools every interval. Twenty seeds are cheap here; with three, say so and show all.
# ## Exercises: `minillm lessons check 30`, with `--hints` when stuck
# 1. `batch_indices(seed, step, batch_size, examples)`: which examples a step sees, as a pure function (20 minutes, medium).
# 2. `mean_and_interval(values)`: mean and 95 % interval over seeds (10 minutes, easy).
# ## Recap
# Order decides bits. Derive randomness from (seed, step); hash what you save; give n, mean, deviation and interval; compare seed by seed.
# **Glossary:** reproducibility 可复现性 · floating point 浮点数 · associative 结合律 · checkpoint 检查点 · hash 哈希 · provenance 溯源 · random seed
# 随机种子 · standard deviation 标准差 · confidence interval 置信区间 · degrees of freedom 自由度
# **Common errors:** a seed set and not used; global random state; a checkpoint without the optimizer; `std()` of NumPy, which divides by n; 1.96 for
# three seeds; the best of many seeds reported; intervals of means compared where differences should be.
# **Next:** 31 Quantisation, pruning, distillation: fewer bits on purpose.
