# %% [markdown]
# # Lesson 16 · One program, many devices
# **Sections:** 1.8.2, 4.9.q2
# - **You will be able to:** say what lies where on a mesh, and what the devices must tell each other · write data, tensor and fully sharded data
#   parallelism by hand, equal to `jit` with shardings · say when bits agree between meshes · compute memory and traffic on paper.
# - **Prerequisites:** lesson 00 (jit, trees), 03 (gradients), 08 (GPT), the first page of 30 (floats). **Time:** an hour; the script, 20 s.
# - **Expected:** the mean of the devices' means misses the gradient by 92 % · the same batch on 2 and on 8 devices: other bits in 88 % of the
#   gradient's numbers, in none with virtual shards · the state of a small GPT on 8 devices: 622,860 bytes each as copies, 79,884 split.
# ## The question
# 1.8.2 expects larger models and better use of hardware; 4.9.q2 asks what they need, and answers: GPUs and TPUs. Soon one of them is too slow or too
# small. Must the program be written anew for eight, or for eight machines? No: it stays, and we say where each array lies. But then who sends what to
# whom, is the result the same, and what does it cost? The eight devices here are *simulated*: they share two cores, so nothing runs faster on eight
# than on one, and no speed is claimed. Results, memory and messages are those of a real mesh; time is computed on paper.
# ## The maths, with shapes
# A **mesh** is an array of devices whose axes have names: [data 4, model 2]. A **sharding** says which axis of an array is cut along which axis of
# the mesh. x [8, 6] as P("data", "model"): pieces [2, 3]; as P("data"): pieces [2, 6], each on two devices; as P(): a copy on all eight. All devices
# run one program, each on its pieces, and talk in **collectives**: of device 0's [1, 2] and device 1's [3, 4], an all-gather gives both [1, 2, 3, 4],
# an all-reduce gives both [4, 6], and a reduce-scatter gives [4] to device 0 and [6] to device 1.
# **Data parallelism**: each device has all parameters and some rows of the batch; gradients are added. The loss is a *sum* of token losses over a
# *sum* of weights, L = (s_0 + s_1) / (w_0 + w_1). On paper: s = 6, 1 and w = 3, 1 give 7/4; the mean of means, (2 + 1)/2, lets the last token count
# three times. So first the weights of all parts are added up to W, then each device differentiates its s_d / W, then the gradients are added.

# %%
import functools
import re

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)  # both before jax first looks for devices: afterwards it is too late

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax import NamedSharding, P

from minillm import config as configs
from minillm import hosts, params, sharding
from minillm.course.record import figure_path, report
from minillm.experiment.paper.describe import step_arguments
from minillm.experiment.setup import make_setup
from minillm.models import gpt
from minillm.models.contract import bind
from minillm.nn.feedforward import feedforward, feedforward_specs
from minillm.objectives.causal import causal
from minillm.training.parts import over_parts
from minillm.training.step import accumulate, make_gradient
from minillm.tuning.freeze import full

COLLECTIVES = r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
told = lambda program: re.findall(COLLECTIVES, program.as_text())  # what stands in a compiled program
x = jax.device_put(np.arange(48).reshape(8, 6), NamedSharding(sharding.make_mesh(data=4, model=2), P("data", "model")))
assert np.array_equal(x.addressable_shards[1].data, [[3, 4, 5], [9, 10, 11]])  # device 1: first rows, last columns

# %% [markdown]
# ## Data parallelism: jit with shardings, and by hand
# `jit` with shardings (once `pjit`) promises the result of the same program on whole arrays, up to rounding: the partitioner (GSPMD: Xu et al. 2021)
# cuts every operation and inserts the collectives. With `shard_map` we write what *one* device does, collectives included.
# **Predict before you run.** Sixteen rows hold 1, 2, ..., 16 tokens (the rest is padding), two rows a device. How far from the true gradient is the
# plain mean of the devices' own gradients: 1 %, 10 %, more? And which collectives will stand in jit's program, where we wrote none?

# %%
SMALL, mesh = {"layers": 1, "heads": 4, "norm": "rms", "activation": "relu", "bias": False}, sharding.make_mesh(data=8)
config = gpt.Config(vocabulary=16, context=16, width=32, **SMALL)
model, weights = bind(gpt, config), params.init_params(gpt.param_specs(config), jax.random.key(16))
text = np.random.default_rng(16).integers(0, 16, (16, 17))
batch = {"tokens": text[:, :-1], "targets": text[:, 1:], "weights": np.float32(np.tri(16))}


def compiled_gradient(devices, shards=1):
    """One program, and words about places."""
    mesh = sharding.make_mesh(data=devices)
    gradient = accumulate(make_gradient(causal, model, full(), {}), shards, mesh)  # with shards = 1 just the gradient
    places = (sharding.replicated(mesh), sharding.batch_sharding(mesh))
    step = jax.jit(lambda p, rows: gradient(p, {}, {}, rows, None)[0], in_shardings=places, out_shardings=places[0])
    return step.lower(weights, batch).compile()


def on_one_device(p, rows, sums):
    """By hand: all devices' weights, then the gradient of this device's rows, then all devices' gradients."""
    total = jax.lax.psum(rows["weights"].sum(), "data") if sums else 8 * rows["weights"].sum()
    return jax.lax.psum(jax.grad(lambda p: causal(model, p, rows).sums["loss"] / total)(p), "data")


places = {"mesh": mesh, "in_specs": (P(), P("data")), "out_specs": P(), "check_vma": False}  # all collectives are ours
by_hand = lambda sums: flat(jax.jit(jax.shard_map(functools.partial(on_one_device, sums=sums), **places))(weights, batch))  # fmt: skip
flat = lambda tree: np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])
distance = lambda a, b: np.linalg.norm(a - b) / np.linalg.norm(b)
program = compiled_gradient(8)
bits = {"plain, 8": flat(program(weights, batch))}
numbers = {f"{name}, relative distance from jit": distance(by_hand(sums), bits["plain, 8"])
           for name, sums in (("by hand", True), ("mean of means", False))}  # fmt: skip
print("jit inserted:", *told(program))

# %% [markdown]
# ## The naive version: two ways to add up, and their bits
# **Ring**: the array is cut into D chunks. In D - 1 turns each chunk goes around and is added to, in D - 1 more the sums go around: each device sends
# 2 (D - 1)/D of the array, the least possible (Patarasuk and Yuan 2009). **Butterfly**: in round k, device i exchanges *all* it has with device i XOR
# 2^k: log2 D arrays, in fewer messages. Float addition is not associative (lesson 30), so the two differ in bits, and so do two numbers of devices.
# The library's **virtual shards** (`training/parts.py`) cut the *batch* into eight parts, for any number of devices, and add in a fixed tree,
# ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)); the butterfly is that tree, and as a + b = b + a to the bit, both partners have the same. **Predict**:
# the gradient of one batch on 2 and on 8 devices: in how many of 13,408 numbers do bits differ, without and with shards? With them, on 8 and on 1?


# %%
def ring(rows):
    """rows [D, n], one per device -> what each holds in the end [D, n], and how many numbers each has sent."""
    devices, sent = len(rows), 0
    held = rows.reshape(devices, devices, -1).copy()  # [device, chunk, numbers]
    for turn in range(2 * (devices - 1)):
        before = held.copy()
        for device in range(devices):
            after, chunk = (device + 1) % devices, (device - turn) % devices
            held[after, chunk] = before[device, chunk] + (before[after, chunk] if turn < devices - 1 else 0)
        sent += held.shape[2]
    return held.reshape(rows.shape), sent


def butterfly(rows):
    """The same, by doubling distances."""
    held, sent, step = rows.copy(), 0, 1
    while step < len(rows):
        held = held + held[np.arange(len(rows)) ^ step]
        sent, step = sent + rows.shape[1], 2 * step
    return held, sent


values = np.random.default_rng(1).normal(size=(8, 960)).astype(np.float32)
around, across = ring(values)[0], butterfly(values)[0]
assert (around == around[0]).all() and (across == across[0]).all() and np.allclose(around, across, atol=1e-5)  # noqa: PT018
for devices in (1, 2, 4, 8):  # the library's sum, to the bit
    library = over_parts(lambda part: part[0], 8, sharding.make_mesh(data=devices))
    assert np.array_equal(jax.jit(library)(values), across[0])
for name, devices, shards in (("plain, 1", 1, 1), ("plain, 2", 2, 1), *((f"shards, {d}", d, 8) for d in (1, 2, 4, 8))):
    bits[name] = flat(compiled_gradient(devices, shards)(weights, batch))
names = sorted(bits)
differ = {(a, b): (bits[a] != bits[b]).mean() for a in names for b in names}
numbers |= {"other bits, ring and butterfly": (around[0] != across[0]).mean(), "numbers in the gradient": len(bits[names[0]])}  # fmt: skip
numbers |= {f"other bits, {kind}, {a} and {b} devices": differ[f"{kind}, {a}", f"{kind}, {b}"]
            for kind, a, b in (("plain", 2, 8), ("shards", 2, 4), ("shards", 2, 8), ("shards", 1, 8))}  # fmt: skip
numbers["largest distance of any two gradients"] = max(distance(bits[a], bits[b]) for a, b in differ)

# %% [markdown]
# With shards every part is the same small program wherever it runs. Why not on one device? A program for one never passes the partitioner; XLA then
# picks other instructions, equal in algebra (one division becomes a multiplication by the reciprocal), not in bits. So 2, 4 and 8 is the promise.
# ## Tensor parallelism: column, then row
# Where a layer is too large for one device, it is cut (Shoeybi et al. 2019, section 3): y = gelu(x U + a) V + b. Cut U by *columns*: each device has
# some hidden units whole, activation included. Cut V by *rows*: each device's product is one summand of y. On paper, relu, x = 1, U = (1, -1),
# V = (2, 3)^T: device 0 gives 1 · 2, device 1 gives 0 · 3, y = 2. **Predict:** how many collectives need column-row and row-column? (gelu(p + q) is
# not gelu(p) + gelu(q).) And what is wrong if every device adds b before the all-reduce?

# %%
axis, table, x = sharding.make_mesh(model=8), feedforward_specs(32, 128), jax.random.normal(jax.random.key(3), (16, 32))
layer = jax.tree.map(lambda leaf: leaf + 0.1, params.init_params(table, jax.random.key(2)))
places, at = sharding.param_shardings(table, sharding.RULES["data"], axis), lambda *spec: NamedSharding(axis, P(*spec))


def column_then_row(p, x):
    """What one device of eight does: 16 of the 128 hidden units."""
    hidden = jax.nn.gelu(x @ p["up"]["kernel"] + p["up"]["bias"])  # [16, 16]
    return jax.lax.psum(hidden @ p["down"]["kernel"], "model") + p["down"]["bias"]  # b once, after the sum


pieces = {"in_specs": (jax.tree.map(lambda place: place.spec, places), P()), "out_specs": P()}
assert np.allclose(jax.shard_map(column_then_row, mesh=axis, **pieces)(layer, x), feedforward(layer, x), atol=1e-5)
swapped = {"up": {"kernel": at("model"), "bias": at()}, "down": {"kernel": at(None, "model"), "bias": at("model")}}
for name, where, columns in (("column-row", places, at()), ("row-column", swapped, at(None, "model"))):
    step = jax.jit(feedforward, in_shardings=(where, columns), out_shardings=at()).lower(layer, x).compile()
    assert np.allclose(step(*jax.device_put((layer, x), (where, columns))), feedforward(layer, x), atol=1e-5)
    numbers[f"collectives, {name}"] = len(told(step))

# %% [markdown]
# ## FSDP: everything split, gathered when needed
# Data parallelism keeps eight copies: 4 bytes per parameter, 8 more for AdamW's two moments: 84 GB for 7 billion. **Fully sharded** (ZeRO stage 3,
# Rajbhandari et al. 2020), each device keeps 1/8 of all three. Before a layer its kernel is *all-gathered*, used and dropped; backward it is gathered
# again, and the gradient is *reduce-scattered*: each device gets the sum for its own piece and updates that. By hand, with four layers in a loop;
# keeping the four gathered kernels would take 65,536 bytes. Then **predict** the bytes of state per device of a GPT of 51,904 parameters on 8, as
# copies and split (norms stay copies); the compiler's account of the training step follows: what goes in, less the batch.

# %%
kernels, rows = jax.random.normal(jax.random.key(4), (4, 64, 64)) / 8, jax.random.normal(jax.random.key(5), (16, 64))
layer = lambda h, kernel: h + jnp.tanh(h @ kernel)
gathered = lambda h, kernel: layer(h, jax.lax.all_gather(kernel, "data", tiled=True))  # its transpose: reduce-scatter
loss = lambda kernels, h, layer: jnp.square(jax.lax.scan(lambda h, one: (layer(h, one), None), h, kernels)[0]).sum()
cut, temporary, state = P(None, "data"), [], {}
for split in (gathered, jax.checkpoint(gathered)):  # checkpoint: forget, and compute again backward
    one = jax.grad(functools.partial(loss, layer=split))
    step = jax.jit(jax.shard_map(one, mesh=mesh, in_specs=(cut, P("data")), out_specs=cut, check_vma=False))
    assert np.allclose(step(kernels, rows), jax.grad(loss)(kernels, rows, layer), rtol=1e-3, atol=1e-3)
    program = step.lower(kernels, rows).compile()
    temporary.append(program.memory_analysis().temp_size_in_bytes)
numbers |= {"collectives per layer": len(told(program)), "bytes saved by gathering again": temporary[0] - temporary[1]}
place = lambda spec, rules, devices: sharding.partition(spec, sharding.RULES[rules], {"data": devices, "model": 1})
share = lambda spec, *mesh: 12 * spec.size // (mesh[1] if "data" in place(spec, *mesh) else 1)
counted = lambda *mesh: sum(share(spec, *mesh) for spec in setup.specs.values()) + 3 * 4  # and three counters
for rules, devices in (("data", 8), ("fsdp", 2), ("fsdp", 8)):  # compiled in haste and never run
    raw = {"data": {"source": "copy"}, "train": {"batch_size": 16}, "mesh": {"data": devices, "rules": rules},
           "model": {"context": 24, "width": 64, **SMALL}}  # fmt: skip
    setup = make_setup(experiment := configs.check(raw, "lesson 16"), 16)
    program = setup.train_step.lower(*step_arguments(experiment, setup)).compile({"xla_backend_optimization_level": 0})
    state[rules, devices] = program.memory_analysis().argument_size_in_bytes - 3 * 4 * 16 * 18 // devices  # the batch
    assert state[rules, devices] == counted(rules, devices)
numbers |= {f"bytes of state, 8 devices, {rules}": state[rules, 8] for rules in ("data", "fsdp")}

# %% [markdown]
# ## Time on paper, and several hosts
# A step computes 6 FLOPs per parameter and token (lesson 14), 4 of them backward, while the first gradients can be on their way. With N parameters, T
# tokens a device and R FLOP/s: 4 N T / R seconds. The ring sends 2 (D - 1)/D · 4 N bytes over a link of B bytes/s. It is **hidden** if T is at least
# 2 (D - 1)/D · R / B: N cancels. With 8 devices of 400 TFLOP/s: 1,556 tokens each on links of 450 GB/s, 14,000 on 50 GB/s. An estimate: R and B are
# assumed, starting a message is free, nothing else uses the link. The butterfly sends 1.71 times as much; FSDP, which gathers twice, 1.5 times.
# **Several hosts**: each starts the same script; `jax.distributed.initialize` finds the others, and then `jax.devices()` are those of all. Each reads
# only its own rows of a batch, one writes (`minillm/hosts.py`), and all make the same calls in the same order: a collective that one never enters
# lets the others wait for ever. Not started here; a test of the library does.

# %%
assert hosts.own_rows(sharding.batch_sharding(mesh), 16) == slice(0, 16) and hosts.writes()  # noqa: PT018  # one host
numbers |= {f"tokens a device to hide, {link} GB/s": 2 * 7 / 8 * 400e12 / (1e9 * link) for link in (450, 50)}
numbers["butterfly over ring, bytes"] = butterfly(values)[1] / ring(values)[1]
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
left.imshow([[differ[a, b] for b in names] for a in names], cmap="Blues", vmin=0, vmax=1.5)
for a, b in differ:
    left.text(names.index(b), names.index(a), f"{differ[a, b]:.0%}", ha="center", va="center")
_ = left.set_xticks(range(7), names, rotation=45, ha="right"), left.set_yticks(range(7), names)
for rules, label in (("data", "copies"), ("fsdp", "split")):
    middle.plot([1, 2, 4, 8], [counted(rules, devices) / 1e3 for devices in (1, 2, 4, 8)], label=label)
    middle.plot(*np.array([(key[1], size / 1e3) for key, size in state.items() if key[0] == rules]).T, "ko")
middle.set(xlabel="devices", ylabel="kB of state per device", title="On paper; dots: the compiler's account", ylim=0)
for way in (ring, butterfly):
    right.plot(range(1, 7), [way(np.zeros((2**k, 64)))[1] / 64 for k in range(1, 7)], "o-", label=way.__name__)
right.set(xlabel="log2 of the devices", ylabel="arrays that each device sends", title="Counted in the naive version", ylim=0)  # fmt: skip
_ = left.set_title("Numbers of the gradient with other bits"), middle.legend(), right.legend()
figure.savefig(figure_path("16", "devices.png"), dpi=120)
report("16", numbers)

# %% [markdown]
# **The figure.** Left: "plain, 2" is jit's gradient on 2 devices; the white square is the promise. All these gradients agree in six digits: rounding,
# no error. Middle: copies do not shrink. Right: the ring stays below two arrays; the butterfly's one per doubling is what the fixed tree costs.
# ## What this toy does not show
# Speed, and whether a compiler really hides what could be hidden. Activations, which come on top of the state. Other compilers insert other
# collectives for the same shardings. Layers on different devices (pipelines) and experts are other ways to cut.
# ## Exercises: `minillm lessons check 16`, with `--hints` for help
# 1. `batch_mean(sums, weights)` · 10 minutes, easy · the loss of a batch from what each device knows.
# 2. `piece_shape(shape, axes, rules, mesh)` · 20 minutes, medium · what of a parameter lies on one device.
# 3. `summands(x, up, down, bias, devices)` · 30 minutes, harder · a feed-forward layer cut by column, then row.
# ## Recap
# Say where arrays lie; the program stays. Add sums, not means. Bits follow the order of additions: fix the order, not the devices. Column, then row:
# one all-reduce. FSDP pays with gathers for memory. **Glossary:** device mesh 设备网格 · sharding 分片 · data parallelism 数据并行 · tensor
# parallelism 张量并行 · fully sharded data parallel 完全分片数据并行 · collective communication 集合通信 · all-reduce 全归约 · host 主机
# **Common errors:** asking for simulated devices after jax has looked · a mean of means · a bias added by every device · a batch that the devices do
# not divide · a collective that only one host enters · equal bits expected of another mesh. **Next:** 17, data and metrics.
