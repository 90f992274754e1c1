# %% [markdown]
# # 30 Reproducible experiments
#
# **Sections:** 2.7.2, 2.9.q2, 4.2.1, 4.3.2.4, 4.5.1.1, 4.5.2.2, 5.5.1, 5.7.2
#
# **You will be able to:** say what the bits of a run depend on, survive a kill, go back in time and change one thing, find a flipped bit, a bad batch
# and a forged log, tell a difference from luck, and distrust the best of many.
#
# **Prerequisites:** 03 (gradients), 08 (GPT). **Time:** 30 s on two cores; an hour of reading.
#
# **Expected:** 1,000 orders of 1,000 numbers give about 35 sums. A resumed run and a branch that changes nothing equal the straight run: parameters
# to the bit, and all 300 lines. Replays name step 7 (forged), 203 (a bit) and 205 (a batch). Three seeds ± 1.96 standard errors hold the truth 81 %
# of the time. The best of 20 equal settings looks 1.87 deviations better than it is.

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
# versions, kind of processor, number of threads and devices. A run repeats to the bit where **all** of these, the config and the seed are equal; the
# order over devices `train.shards` can fix, so that 2, 4 and 8 of them give the same bits (lesson 16).

# %%
import itertools
import json
import shutil
import subprocess
import sys
import time
from functools import partial
from hashlib import sha256
from pathlib import Path
from unittest import mock

import jax
import numpy as np
from matplotlib import pyplot as plt
from scipy import stats

from minillm import config as configs
from minillm import params
from minillm.course.record import figure_path, report
from minillm.data import synthetic
from minillm.errors import UserError
from minillm.evaluation.intervals import over_seeds, paired_seeds, welch
from minillm.experiment import fork
from minillm.experiment import run as runs
from minillm.experiment.many import draws
from minillm.experiment.verify import verify
from minillm.models import contract, gpt
from minillm.objectives.causal import causal
from minillm.report.plot import COLOURS
from minillm.training import checkpoint, loop, optimizer, provenance, step, watch
from minillm.tuning.freeze import full

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
generator, restarted = np.random.default_rng(42), np.random.default_rng(42)  # restarted: killed after three steps
carried = [generator.integers(100) for _ in range(6)]
assert [restarted.integers(100) for _ in range(3)] == carried[:3] != carried[3:]  # old batches again, and no error


def naive_record(previous: str, step: int, batch: str, key: str, loss: float) -> dict:
    """One line: chain = sha256(chain of the line before + this line, keys sorted, no spaces)."""
    line = {"step": step, "batch": batch, "key": key, "loss": f"{np.float32(loss).view(np.uint32):08x}"}  # all 32 bits
    text = json.dumps(line, sort_keys=True, separators=(",", ":"))
    return line | {"chain": sha256((previous + text).encode()).hexdigest()}


chain = provenance.START
for number, loss in enumerate((2.5, 1.25, 0.1), start=1):
    line = naive_record(chain, number, "b" * 16, "k" * 16, loss)
    assert line == provenance.record(chain, number, "b" * 16, "k" * 16, loss)
    chain = line["chain"]

# %% [markdown]
# ## Predict before you run
# 1. A run of 300 steps saves a checkpoint every 50. After step 120 it is killed (SIGKILL: no chance to clean up). Its log has lines beyond the newest
#    checkpoint. What should `--resume` do with them? Will the parameters equal those of a run that nobody killed, to the last bit?
# 2. A **branch** goes on from step 200 of the straight run with a tenth of the learning rate. Which is the first line of its log that differs?
#
# A run's folder is its tracker (2.7.2, 5.7.2), without a server: config, metrics, log, checkpoints, report, and a manifest with versions, processor,
# threads, hashes of the data. TensorBoard and Weights & Biases may listen (`[tracking]`), but `metrics.jsonl` is the record, from which the event
# files are made. (4.5.1.1 installs without versions; 5.5.1 makes the virtual environment *after* installing: make it first, then pin.)

# %%
SETTINGS = ("train.steps=300", "train.checkpoint_every=50", "train.hash_every=50", "train.evaluate_every=300", "train.keep_last=9",
            "train.batch_size=8", "model.layers=1", "model.width=16", "model.heads=2")  # fmt: skip
root, quiet = figure_path("30", "runs"), lambda *anything: None
shutil.rmtree(root, ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", str(root / "compiled"))  # what several runs share is compiled once
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
experiment = configs.load(Path("configs/copy.toml"), SETTINGS)
trunk, killed, log = root / "straight", root / "killed", root / "killed/provenance.jsonl"
straight = runs.run(experiment, trunk, False, quiet, quiet)
options = [part for setting in SETTINGS for part in ("--set", setting)]
command = [sys.executable, "-m", "minillm.cli", "run", "configs/copy.toml", *options, "--out", str(killed)]
with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
    while process.poll() is None and not (log.exists() and len(log.read_bytes().splitlines()) > 120):
        time.sleep(0.005)
    process.kill()
assert process.returncode == -9
print(f"killed: {len(log.read_bytes().splitlines())} lines, checkpoints {checkpoint.steps(killed / 'checkpoints')}")
resumed = runs.run(experiment, killed, True, quiet, quiet)

branch = lambda name, *changes: runs.run(fork.make(trunk, 200, changes), root / name, False, quiet, quiet)
same, slower = branch("same"), branch("slower", "optimizer.learning_rate=3e-4")
logs = {name: (root / name / "provenance.jsonl").read_bytes() for name in ("straight", "killed", "same", "slower")}
for name, summary in (("killed", resumed), ("same", same)):
    assert (logs[name], summary["parameter_hash"]) == (logs["straight"], straight["parameter_hash"])
ours, theirs = (logs[name].splitlines() for name in ("straight", "slower"))
differing = 1 + [a == b for a, b in zip(ours, theirs, strict=True)].index(False)
print((trunk / "manifest.json").read_text(), f"the branch differs from line {differing} on", sep="\n")

# %% [markdown]
# The lines after the checkpoint are cut, the steps run again, and since batch and key depend on the step alone, they write the same lines. So a run
# can begin anywhere: `minillm branch RUN --at 200 --set KEY=VALUE` takes over state and log up to a checkpoint. With nothing changed it *must* become
# its trunk again, so what differs is due to the change alone, from line **202** on: the loss of step 201 was computed before its update, the first
# at the new rate. (What the saved state cannot follow, such as another width, is refused.)
# ## Faults on the disk, in the log, in memory, in the data
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
newest, LEAF = killed / "checkpoints/step_00000300", "blocks/attention/query/kernel"
arrays = newest / "arrays" / f"trainable/{LEAF}".replace("/", ".")
victim = max(arrays.iterdir(), key=lambda path: path.stat().st_size)
sound = victim.read_bytes()
victim.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
assert f"leaf trainable/{LEAF}" in refusal(checkpoint.verify, newest.parent, 300)
victim.write_bytes(sound)
rows = provenance.read(log)
log.write_bytes(logs["killed"].replace(rows[6]["loss"].encode(), b"3dcccccd"))  # step 7 had a loss of 0.1, honestly
assert "provenance.jsonl:7" in refusal(provenance.read, log)
log.unlink()
chain = provenance.START
for row in rows:
    loss = 0.1 if row["step"] == 7 else np.uint32(int(row["loss"], 16)).view(np.float32)
    line = provenance.record(chain, row["step"], row["batch"], row["key"], loss, row.get("parameters"))
    provenance.append(log, line)
    chain = line["chain"]
assert len(provenance.read(log)) == 300  # the chain holds
print("forged:", (forged := verify(killed, 20, quiet))["verdict"])

# %% [markdown]
# Hashes of files say nothing about what was wrong *before* it was written. **Predict:** in memory, the last bit of a parameter flips after step 203
# of a branch whose log hashes parameters at every step. Of another, batch 204 (step 205 reads it) is damaged and yields NaN. What will a replay on a
# sound machine name? A loss that is not finite is noticed at once, and `train.on_non_finite` says what follows: **stop**, with the first value that
# is not finite; **skip** the update; or **rewind** to the last checkpoint and leave out the batches from there to the bad step, as Chowdhery et al.
# (2022, section 5.1) did by hand. From then on the log says which batch, by its `number`, a step read.

# %%
sound_fit, sound_batch = loop.fit, synthetic.copy_batch


def flip(train_step, state, *others):
    """A step on a machine that flips one bit in memory after step 203."""
    state, metrics = train_step(state, *others)
    leaves = params.flatten(state.trainable)
    bits = np.array(leaves[LEAF]).view(np.uint32)
    bits.flat[0] ^= np.uint32(int(state.step) == 203)
    leaves[LEAF] = jax.device_put(bits.view(np.float32), leaves[LEAF].sharding, may_alias=False)
    return state._replace(trainable=params.unflatten(leaves)), metrics


def damage(seed, step, **settings):
    """Data of which batch 204 cannot be read."""
    batch = sound_batch(seed, step, **settings)
    return batch | {"weights": batch["weights"] * np.float32("nan")} if step == 204 else batch


SHORT = ("train.steps=210", "train.hash_every=1")
with mock.patch.object(loop, "fit", lambda train_step, *others: sound_fit(partial(flip, train_step), *others)):
    branch("flipped", *SHORT)
with mock.patch.object(synthetic, "copy_batch", damage):
    refusal(branch, "stop", *SHORT)
    bad = {what: branch(what, *SHORT, f"train.on_non_finite={what}")["bad_steps"] for what in ("skip", "rewind")}
replays = {name: verify(root / name, None, quiet) for name in ("flipped", "skip", "rewind")}
print(*(f"{name}: {found['verdict']} {bad.get(name, '')}" for name, found in replays.items()), sep="\n")
assert (replays["flipped"]["leaf"], replays["skip"]["field"], replays["rewind"]["equal"]) == (LEAF, "batch", True)
read = [row.get("number", row["step"] - 1) for row in provenance.read(root / "rewind/provenance.jsonl")]
left_out = sorted(set(range(max(read))) - set(read))
deviation = lambda x: 1.4826 * np.median(np.abs(x - np.median(x)))  # of normal draws, the standard deviation
naive_spike = lambda before, loss, factor: bool(loss > np.median(before) + factor * deviation(before))  # Hampel 1974
assert [naive_spike(np.array([1.0, 2.0, 3.0, 4.0, 100.0]), loss, 6.0) for loss in (11.8, 12.0)] == [False, True]
for before in random.normal(2.0, 0.1, size=(500, 10)):
    loss = random.normal(2.3, 0.3)
    assert naive_spike(before, loss, 4.0) == bool(watch.spike(before.tolist(), loss, watch.Watch(spike=4.0, window=10)))

# %% [markdown]
# The bit is named by step and leaf; the skipped batch is named, for the sound machine reads another; after the rewind all is equal, since batches 200
# to 204 are in no step. `train.spike = 6.0` looks for losses that are finite, but far too large, to warn or to rewind. By hand, after 1, 2, 3, 4 and
# 100: median 3, distances 2, 1, 0, 1, 97, their median 1, limit 3 + 6 · 1.4826 = 11.9. Mean and standard deviation follow the spike itself: 22 + 6 ·
# 43.6 = 284, and the next 100 would pass.
# ## Equal bits are not a claim: seeds
# Nobody cares about seed 0, and a branch is one seed as well. Repeat with n seeds: mean $m$, standard deviation $s$ (dividing by n - 1), and the
# interval $m \pm t_{n-1} \, s / \sqrt{n}$, which holds the true mean in 95 % of such experiments, if the values are roughly normal. By hand, for
# losses 1, 2, 3: m = 2, s = 1, t = 4.303, so 2 ± 2.48. **Predict:** with 1.96, as for a normal distribution, how often do three seeds catch the
# truth? And if one adds seeds, up to 20, until an interval leaves 0: how often does that find a difference where there is none? Of two settings
# `minillm compare` gives the *difference*: by Welch's t, which takes all seeds for independent, and **seed by seed** where both have the same, since
# $s^2_{a-b} = s^2_a + s^2_b - 2 \, \mathrm{cov}(a, b)$: what a seed does to both cancels. Now 20 seeds of a small GPT on the copy task, stopped while
# it learns, at two learning rates.

# %%
STEPS, SEEDS = 100, 20
half_width = lambda error, freedom: stats.t.ppf(0.975, freedom) * error
interval = lambda x: (x.mean(-1), half_width(x.std(-1, ddof=1) / np.sqrt(x.shape[-1]), x.shape[-1] - 1))  # [..., seeds]


def naive_welch(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """mean(a) - mean(b) and half the width of its 95 % interval, for independent seeds (Welch 1947)."""
    parts = [row.var(ddof=1) / len(row) for row in (a, b)]
    freedom = sum(parts) ** 2 / sum(part**2 / (len(row) - 1) for part, row in zip(parts, (a, b), strict=True))
    return a.mean() - b.mean(), half_width(np.sqrt(sum(parts)), freedom)


assert np.allclose(interval(np.arange(1.0, 4.0)), (2.0, 2.484), atol=1e-3)
for a, b in random.normal(size=(20, 2, 6)):
    mine = interval(a), interval(a - b), naive_welch(a, b[:4])
    for ours, theirs in zip(mine, (over_seeds(a), paired_seeds(b, a), welch(b[:4], a)), strict=True):
        assert np.allclose(ours, ((theirs["low"] + theirs["high"]) / 2, (theirs["high"] - theirs["low"]) / 2))
threes = random.normal(size=(20_000, 3))
errors = np.abs(threes.mean(1)) / (threes.std(1, ddof=1) / np.sqrt(3))  # in standard errors
caught = [float((errors < factor).mean()) for factor in (1.96, 4.303)]
nothing = random.normal(size=(5000, 20))  # differences of two equal settings; after n seeds, n = 3 to 20: a claim?
claims = [abs(middle) > half for middle, half in (interval(nothing[:, :n]) for n in range(3, 21))]
peeked = float(np.any(claims, axis=0).mean())
copies = lambda seed: [synthetic.copy_batch(seed, number, 32, 4, 6) for number in range(STEPS)]
training = [jax.tree.map(lambda *leaves: np.stack(leaves), *copies(seed)) for seed in range(SEEDS)]
held_out = synthetic.copy_batch(0, 0, 512, 4, 6, split="validation")


def final_losses(rate: float) -> np.ndarray:
    """Held-out loss of every seed, [seeds]."""
    config = gpt.Config(vocabulary=4 + 6, context=10, layers=2, width=32, heads=2)
    specs, model = gpt.param_specs(config), contract.bind(gpt, config)
    settings = optimizer.OptimizerConfig(learning_rate=rate, warmup_steps=20)
    rule = optimizer.make_optimizer(settings, STEPS, params.decay_mask(specs))
    train_step = step.make_train_step(step.make_gradient(causal, model, full(), {}), rule, full(), {})

    @jax.jit
    def train(key, data):
        state = step.init_state(params.init_params(specs, key), {}, rule)
        state = jax.lax.scan(lambda state, batch: train_step(state, {}, batch, key), state, data)[0]
        return causal(model, state.trainable, held_out).sums["loss"] / held_out["weights"].sum()

    return np.array([train(jax.random.key(seed), training[seed]) for seed in range(SEEDS)])


base, faster = final_losses(3e-3), final_losses(3.45e-3)
inverted = float((faster[:, None] > base).mean())  # one seed of each: all 400 pairs
compared = {"Welch": welch(base, faster), "paired": paired_seeds(base, faster)}  # as `minillm compare` does
print(*(f"rate + 15 %, {kind}: {found}" for kind, found in compared.items()), sep="\n")
wide, narrow = (found["high"] - found["low"] for found in compared.values())

# %% [markdown]
# ## Many settings: search, and the luck of the best
# 4.3.2.4 adjusts hyperparameters until the validation score pleases; 2.9.q2 asks for the rate. In a grid of 4 × 4 × 4 points each key takes 4 values;
# in 64 random points, about 64. Often few keys matter, and nobody knows which (Bergstra and Bengio 2012). **Predict:** the best value lies anywhere
# between 0 and 1. How far is the nearest that was tried, if one key of three matters? If all do? And then: the best of k settings, all *equal* but
# for luck of deviation s, looks better than it is by s times the expected largest of k normal draws, $\int x \, d\,\Phi(x)^k$; for k = 2,
# $1/\sqrt\pi = 0.56$. **Predict** it for k = 20.

# %%
GRID = np.array(list(itertools.product((0.125, 0.375, 0.625, 0.875), repeat=3)))
SPACE = {key: ["0.0..1.0"] for key in ("rate", "decay", "dropout")}  # `minillm sweep --grid KEY=0.0..1.0 --random 64`
searches = [draws.draw_points(SPACE, draws.Search(64, seed)) for seed in range(100)]
tried = np.array([[list(map(float, point.values())) for point in points] for points in searches])  # [100, 64, 3]
truths = random.uniform(size=(100, 3))  # the best values
miss = lambda points, keys: float(np.abs(points - truths[:, None])[..., :keys].max(-1).min(-1).mean())
x = np.linspace(-8.0, 8.0, 4001)
expected_best = lambda k: float((np.diff(stats.norm.cdf(x) ** k) * (x[1:] + x[:-1]) / 2).sum())
assert abs(expected_best(2) - 1 / np.sqrt(np.pi)) < 1e-4
first, fresh = random.normal(size=(2, 20_000, 20))  # two seeds of 20 settings, all equal
looks, holds = (values[np.arange(20_000), first.argmax(1)].mean() for values in (first, fresh))
figure, (gaps, places, best) = plt.subplots(1, 3, figsize=(16, 4.8), dpi=120, layout="constrained")
pairs, kinds = [(base[:n], faster[:n]) for n in (3, 5, 10, 20)], {"paired": paired_seeds, "Welch": welch}
for shift, colour, (kind, rule) in zip((-0.1, 0.1), COLOURS, kinds.items(), strict=False):
    found = [rule(*pair) for pair in pairs]
    middles, halves = [row["value"] for row in found], [row["high"] - row["value"] for row in found]
    gaps.errorbar(np.arange(4) + shift, middles, halves, fmt="s", color=colour, capsize=4, label=kind)
gaps.axhline(0.0, color="grey", linestyle="--", linewidth=1)
gaps.set_xticks(range(4), [3, 5, 10, 20])
gaps.set(xlabel="seeds", ylabel="nats per token", title="Rate + 15 %: difference of losses, 95 %")
gaps.legend(frameon=False)
for number, (name, points) in enumerate((("grid", GRID), ("random", tried[0]))):
    label = f"{name}: {len(set(points[:, 0]))} values of key 1"
    places.plot(*points.T[:2], "so"[number], color=COLOURS[number], markersize=5, label=label)
    places.plot(points[:, 0], np.full(64, -0.06 - 0.06 * number), "|", color=COLOURS[number], markersize=10)
places.set(xlabel="key 1", ylabel="key 2", title="64 points in three keys, seen from one side", ylim=(-0.16, 1.2))
places.legend(frameon=False, loc="upper center", ncols=2)
best.plot(ks := np.arange(1, 101), [expected_best(k) for k in ks], color=COLOURS[0], label="the winner, expected")
best.plot(20, luck := (base.mean() - base.min()) / base.std(ddof=1), "o", color=COLOURS[1], label="best of 20 seeds")
best.axhline(0.0, color="grey", linestyle="--", linewidth=1, label="the winner on fresh seeds")
best.set(xscale="log", xlabel="settings tried, all equal", ylabel="deviations", title="How much too good the best looks")  # fmt: skip
best.legend(frameon=False)
figure.savefig(figure_path("30", "seeds.png"))
report("30", {
    "different sums of 1,000 numbers": len(sums), "three seeds, caught by 1.96": caught[0], "three seeds, caught by t": caught[1],
    "resumed equals straight, parameters": resumed["parameter_hash"] == straight["parameter_hash"],
    "resumed equals straight, lines": len(set(logs["killed"].splitlines()) & set(logs["straight"].splitlines())),
    "branch equals straight, parameters": same["parameter_hash"] == straight["parameter_hash"],
    "first other line of the branch": differing, "forged step": forged["step"], "flipped bit, step": replays["flipped"]["step"],
    "bad batch, step": replays["skip"]["step"], "batches left out": len(left_out), "first batch left out": left_out[0],
    "seeds added until a claim": peeked, "loss": base.mean(), "loss, rate + 15 %": faster.mean(), "deviation over seeds": base.std(ddof=1),
    "pairs of seeds that invert the order": inverted, "paired interval, in widths of Welch's": narrow / wide,
    "miss of the grid, one key": miss(GRID, 1), "miss of random search, one key": miss(tried, 1),
    "miss of the grid, three keys": miss(GRID, 3), "miss of random search, three keys": miss(tried, 3),
    "best of 20, expected": expected_best(20), "best of 20, looks": looks, "best of 20, on fresh seeds": holds,
    "best of 20 seeds, deviations": luck, "some p of 20 below 0.05": 1 - 0.95**20,
})  # fmt: skip

# %% [markdown]
# **What to read from the figure.** Left: Welch's intervals are three times as wide, for what two runs with one seed share, start and data, cancels in
# a pair. In the run behind this text five pairs decide, Welch's t needs all twenty, and one seed of each orders the rates wrongly in 22 % of the
# pairs. Who adds seeds until an interval leaves 0 finds a difference where there is none in 22 % of cases, not 5 %: fix n first. (Another processor
# rounds otherwise and draws other dots; the conclusions should stand.) Middle: if one key matters, the grid misses by 0.066, random points by 0.008;
# if all three do, the grid is ahead, 0.096 to 0.126 in the worst key. Right: the best of 20 equals looks 1.87 deviations too good; of our seeds the
# best looks 2.2 · 0.13 = 0.29 nats better than the mean, twice what the higher rate gains. On fresh seeds nothing of it is left (0.00). So judge the
# winner on other data or seeds, and count what was tried: of 20 independent comparisons of equals some p is below 0.05 with probability 0.64.
# ## What this toy does not show
# Bits across machines: the manifest says what differed, not how much it matters. Hashes prove that a record was not changed, not that the experiment
# was well chosen. Twenty seeds are cheap here; with three, say so and show all.
# ## Exercises: `minillm lessons check 30`, with `--hints` when stuck
# 1. `batch_indices(seed, step, batch_size, examples)`: the examples of a step, as a pure function (20 minutes, medium). 2. `mean_and_interval`: over
# seeds, with 95 % (10 minutes, easy). 3. `judge_winner(chosen_on, judged_on)`: how good is the best of many (15 minutes, medium)?
# ## Recap
# Order decides bits. Derive randomness from (seed, step), and every step can be gone back to. Hash what you save, replay what you doubt. Give n,
# mean, deviation and interval; compare seed by seed; judge a winner on other seeds or data.
# **Glossary:** reproducibility 可复现性 · floating point 浮点数 · associative 结合律 · checkpoint 检查点 · hash 哈希 · provenance 溯源 · random seed
# 随机种子 · standard deviation 标准差 · confidence interval 置信区间 · degrees of freedom 自由度 · loss spike 损失尖峰 · grid search 网格搜索 ·
# random search 随机搜索 · multiple comparisons 多重比较
# **Common errors:** a seed set and not used; global random state; a checkpoint without the optimizer; NaN batches skipped without a word; `std()` of
# NumPy, which divides by n; 1.96 for three seeds; the best of many seeds or settings reported; intervals of means compared where differences should
# be. **Next:** 31 Quantisation, pruning, distillation: fewer bits on purpose.
