# %% [markdown]
# # Lesson 13 · Autoencoders, ViT and images
#
# **Sections:** 3.2.1, 5.2.1, 5.3.2.1, 5.3.4, 5.6.2
# - **You will be able to:** say what an autoencoder learns and measure it beside principal components · tell a good reconstruction from a good
#   representation · build the input of a Vision Transformer by hand · pretrain on images without labels by hiding patches.
# - **Prerequisites:** lesson 04 (dense layers, convolution), lesson 06 (attention). **Time:** an hour; the script, 30 s on two cores.
# - **Expected:** on paper: 2 of 10 units of variance are lost · rebuilding held-out digits from 8 numbers: squared error 0.024 by components, 0.014
#   by an autoencoder (the mean image: 0.073) · noise of 0.09 shrinks to 0.042 if trained on clean images, 0.022 on noisy ones · accuracy: ViT 0.98,
#   nearest neighbour 0.97, logistic regression 0.97 · hidden pixels: 0.051 by ViT, 0.072 by the mean image.
# ## The question
# Document 3 explains the autoencoder as "an encoder and a decoder that map the input to a low-dimensional representation and back", and calls BERT a
# typical one (3.2.1). Document 5 lists ViT beside BERT and GPT (5.2.1), pretrains "text, images or sound" with masked inputs (5.3.2.1) and names
# image classification first among the uses in vision (5.6.2, 5.3.4). Is a small code enough to rebuild an image? Is it then a good description
# of it? And does a Transformer that knows nothing of images read them better than methods from before?
#
# (A kind note on 3.2.1: BERT has no small code. It keeps one vector per token, each wider than what it encodes, and predicts hidden tokens only. What
# the two share is that the input is the target; the last experiment below does to images what BERT does to text. And on 5.2.1: the paper's ViT was
# pretrained on labelled images; hiding patches was tried and scored lower there.)
# ## The maths, with shapes
# An encoder f: [pixels] -> [code] and a decoder g: [code] -> [pixels], trained to make the mean of |x - g(f(x))|² small (Hinton and Salakhutdinov
# 2006). If both are linear, the best g(f(x)) is known in closed form: the mean plus the projection on the first principal components (Baldi and
# Hornik 1989). On paper: the points (3, 1), (1, 3), (-3, -1), (-1, -3) have the mean 0 and the covariance [[5, 3], [3, 5]], whose eigenvectors are
# (1, 1)/√2 with eigenvalue 8 and (1, -1)/√2 with 2. A code of one number keeps the first: (3, 1) becomes (2, 2), the mean squared error is 2, and
# 8 of the 10 units of variance are kept. A **denoising** autoencoder (Vincent et al. 2008) reads x plus noise and must return x: copying no longer
# helps.

# %%
import functools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from minillm import params
from minillm.course.record import figure_path, report
from minillm.data import images
from minillm.models import autoencoder, vit
from minillm.models.contract import bind
from minillm.objectives import OBJECTIVES
from minillm.objectives.causal import token_losses
from minillm.report.plot import COLOURS
from minillm.training.optimizer import OptimizerConfig, make_optimizer
from minillm.training.step import init_state, make_gradient, make_train_step
from minillm.tuning import full


def components(x, count):
    """x [n, d] -> its mean [d] and first `count` principal components [count, d]."""
    return x.mean(0), np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:count]


project = lambda x, mean, directions: mean + (x - mean) @ directions.T @ directions  # to [n, count] numbers, and back
points = np.array([[3.0, 1.0], [1.0, 3.0], [-3.0, -1.0], [-1.0, -3.0]])
rebuilt = project(points, *components(points, 1))
assert np.allclose(rebuilt[0], [2.0, 2.0])
numbers = {"on paper: squared error of one number": np.square(points - rebuilt).sum(1).mean()}


# %% [markdown]
# ## The naive version: what a Vision Transformer reads
# Dosovitskiy et al. 2021, equation 1: cut the image into patches, map each to a vector with one matrix, put a learned *class token* in front, add a
# learned vector per position. From there on it is a stack of attention and feed-forward blocks. Cutting and mapping is one convolution whose stride
# is its size. The loop below is held against `vit.embed`.


# %%
def embed_by_loops(weights, image, patch):
    """image [height, width, channels] -> [1 + patches, model]."""
    rows = [weights["class_token"]]
    for top in range(0, image.shape[0], patch):
        for left in range(0, image.shape[1], patch):
            pixels = image[top : top + patch, left : left + patch].reshape(-1)  # row, column, channel
            rows.append(pixels @ weights["patch"]["kernel"] + weights["patch"]["bias"])
    return np.stack(rows) + weights["position"]["table"]


digits = images.digits()
training, _, test = (images.split(digits, part) for part in images.SHARES)
small = vit.Config(patch=2, layers=1, width=32, heads=4, tasks=("patches",))
weights = params.init_params(vit.param_specs(small), jax.random.key(0))
fast = vit.embed(weights, {"images": jnp.asarray(test.images[:1])}, small)[0]
assert np.allclose(fast, embed_by_loops(weights, test.images[0], 2), atol=1e-5)
assert fast.shape == (17, 32)  # an 8 x 8 image in patches of 2 x 2, and the class token


# %% [markdown]
# ## A small real experiment: 1,797 handwritten digits
# 8 x 8 pixels between 0 and 1, split 70 : 15 : 15 by label (not by writer: the source does not name them). One function trains everything here.
# %%
@functools.cache
def make_step(module, config, objective, steps):
    """The compiled step, and its optimizer."""
    optimizer, tuning = OptimizerConfig(learning_rate=3e-3, warmup_steps=40), full()
    optimizer = make_optimizer(optimizer, steps, params.decay_mask(module.param_specs(config)))
    gradient = make_gradient(OBJECTIVES[objective], bind(module, config), tuning, {})
    return jax.jit(make_train_step(gradient, optimizer, tuning, {}), donate_argnums=0), optimizer


def train(module, config, objective, batch_at, steps, seed=0):
    """Trains on batch_at(seed, step) -> parameters."""
    step, optimizer = make_step(module, config, objective, steps)
    born = params.init_params(module.param_specs(config), jax.random.key(seed))
    state = init_state(born, {}, optimizer)
    for number in range(steps):
        state, _ = step(state, {}, batch_at(seed, number), jax.random.key(seed))
    return state.trainable


def noisy_batch(seed, step, noise=0.0):
    return images.corrupt_pixels(images.image_batch_at(training, seed, step, 64), seed, step, "gaussian", noise)


def probe(codes, held_out):
    """Accuracy of the best linear map from code to label, by least squares (a closed form, nothing to tune)."""
    add = lambda x: np.c_[x, np.ones(len(x))]
    fitted = np.linalg.lstsq(add(codes), np.eye(10)[training.labels], rcond=None)[0]
    return ((add(held_out) @ fitted).argmax(1) == test.labels).mean()


flat = lambda dataset: dataset.images.reshape(len(dataset.labels), -1)
run = lambda weights, pictures, config: autoencoder.apply(weights, {"images": jnp.asarray(pictures)}, config).hidden

# %% [markdown]
# **Predict before you run.** Both methods squeeze 64 pixels into 8 numbers. Whose reconstruction of *held-out* digits is better, and by how much? And
# from whose 8 numbers does a linear classifier read the digit better?

# %%
CODES, errors, probes, restored = (2, 4, 8, 16), np.zeros((2, 4)), np.zeros((2, 4)), {}
for column, code in enumerate(CODES):
    mean, directions = components(flat(training), code)
    config = autoencoder.Config(hidden=(128, 64), code=code)
    weights = train(autoencoder, config, "denoising", noisy_batch, 800)
    codes = run(weights, test.images, config)
    rebuilt = project(flat(test), mean, directions), autoencoder.reconstruct(weights, codes, config).reshape(-1, 64)
    errors[:, column] = [np.square(found - flat(test)).mean() for found in rebuilt]
    probes[0, column] = probe(flat(training) @ directions.T, flat(test) @ directions.T)
    probes[1, column], restored[code] = probe(run(weights, training.images, config), codes), rebuilt
    print(f"code of {code:2}: squared error per pixel: components {errors[0, column]:.4f}, autoencoder {errors[1, column]:.4f}"
          f" · probe: {probes[0, column]:.3f}, {probes[1, column]:.3f}")  # fmt: skip
for row, column in ((0, 0), (0, 2), (1, 0), (1, 1), (1, 2)):
    name = "autoencoder" if row else "components"
    numbers[f"{name}, code of {CODES[column]}: squared error"] = errors[row, column]
    numbers[f"{name}, code of {CODES[column]}: probe"] = probes[row, column]
numbers["mean image: squared error"] = np.square(flat(test) - flat(training).mean(0)).mean()
assert (errors[1] < errors[0]).all()  # for every size of the code

# %% [markdown]
# The autoencoder rebuilds better at every size, with 4 numbers as well as components with 8. The linear probe gains much less, and loses with 2
# numbers: to rebuild an image and to say what it is are two aims, and nothing in the loss asks that planes separate the classes.
#
# ## Noise in, clean out
# A network of one hidden layer, trained on clean images or on images with noise of standard deviation 0.3, reads noisy ones.

# %%
config = autoencoder.Config(hidden=(128,), code=16)
noisy = images.corrupt_pixels({"images": test.images}, 7, 0, "gaussian", 0.3)["images"]
for name, noise in (("trained on clean images", 0.0), ("trained on noisy images", 0.3)):
    weights = train(autoencoder, config, "denoising", functools.partial(noisy_batch, noise=noise), 800)
    cleaned = autoencoder.reconstruct(weights, run(weights, noisy, config), config)
    numbers[f"squared error on noisy images, {name}"] = np.square(cleaned - test.images).mean()
numbers["squared error of the noise itself"] = np.square(noisy - test.images).mean()

# %% [markdown]
# ## A Transformer that reads images
# ViT with four patches of 4 x 4, three seeds, on images that move by up to one pixel. Two baselines: logistic regression of the pixels, and the label
# of the nearest training image. **Predict**: does the Transformer beat the neighbour, a method without any training?

# %%
config, accuracy = vit.Config(patch=4, layers=2, width=64, heads=4), []
for seed in range(3):
    batch_at = lambda seed, step: images.image_batch_at(training, seed, step, 64, shifts=1)
    weights = train(vit, config, "classify", batch_at, 700, seed)
    scores = vit.classify(weights, vit.apply(weights, {"images": jnp.asarray(test.images)}, config).hidden, config)
    accuracy.append((np.asarray(scores).argmax(-1) == test.labels).mean())
print(f"ViT: {np.mean(accuracy):.3f} ± {np.std(accuracy, ddof=1):.3f} over 3 seeds")
loss = lambda kernel: token_losses(flat(training) @ kernel, training.labels)[0].mean()
descend = lambda kernel, _: (kernel - 2.0 * jax.grad(loss)(kernel), None)
logistic = jax.lax.scan(descend, jnp.zeros((64, 10)), length=1000)[0]
distance = np.square(flat(test)[:, None] - flat(training)).sum(-1)
numbers["accuracy: ViT"] = np.mean(accuracy)
numbers["accuracy: nearest neighbour"] = (training.labels[distance.argmin(1)] == test.labels).mean()
numbers["accuracy: logistic regression"] = (np.asarray(flat(test) @ logistic).argmax(-1) == test.labels).mean()

# %% [markdown]
# ## Pretraining without labels: hide patches
# Masked language modelling with patches for words: half of the 16 patches become a mask token (with its position), and the loss counts the pixels of
# the hidden ones only (SimMIM: Xie et al. 2022). The label is never read. Baseline: the mean training image in the same place.

# %%
batch_at = lambda seed, step: images.mask_patches(images.image_batch_at(training, seed, step, 64), seed, step, 2)
weights = train(vit, small, "masked_patches", batch_at, 500)
masked = images.mask_patches({"images": test.images}, 7, 0, 2)
hidden = masked["masked_patches"][..., None]
filled = vit.patches(weights, vit.apply(weights, masked, small).hidden, small)
average = images.cut_patches(training.images.mean(0)[None], 2)
error = lambda guess: (np.square(guess - masked["targets"]) * hidden).sum() / (4 * hidden.sum())
numbers["hidden pixels: squared error of ViT"] = error(filled)
numbers["hidden pixels: squared error of the mean image"] = error(average)

# %% [markdown]
# ## The figure
# Left: the error of either code. Right: held-out digits; below each, rebuilt from 8 numbers in two ways, then with half of the patches hidden (grey),
# and with ViT's guess in their place.

# %%
whole = lambda patches: (
    np.asarray(patches).reshape(-1, 4, 4, 2, 2).swapaxes(2, 3).reshape(-1, 8, 8)
)  # [n, 16, 4] -> [n, 8, 8]
figure = plt.figure(figsize=(11, 4.6), layout="constrained")
left, right = figure.subfigures(1, 2)
axes = left.subplots()
for row, name in enumerate(("components", "autoencoder")):
    axes.plot(CODES, errors[row], marker="o", color=COLOURS[row], label=name)
axes.set(xlabel="numbers in the code", ylabel="squared error per pixel, held out", xscale="log", yscale="log")
axes.set_xticks(CODES, CODES)
axes.xaxis.set_minor_formatter("")
axes.legend()
holes, guess = (whole(np.where(hidden, fill, masked["targets"])) for fill in (0.5, filled))
rows = {"digit": test.images, "components": restored[8][0], "autoencoder": restored[8][1]} | {
    "hidden": holes,
    "ViT": guess,
}
for place, (name, pictures) in zip(right.subplots(5, 8), rows.items(), strict=True):
    for column, axes in enumerate(place):
        axes.imshow(np.asarray(pictures[column]).reshape(8, 8), cmap="gray", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
    place[0].set_ylabel(name, rotation=0, ha="right", va="center")
figure.savefig(figure_path("13", "codes_and_patches.png"), dpi=120)
report("13", numbers)

# %% [markdown]
# ## What this toy does not show
# - That ViT is good at images: trained on 1,258 of them, it ends where two methods from before stand. In the paper it took more than the 1.3 million
#   images of ImageNet to pass convolutional networks.
# - That hiding patches helps a classifier: we measured how well it fills them in. And 269 test images are few: one is 0.4 %, and the three accuracies
#   are nearer to each other than that.
# ## Exercises: `minillm lessons check 13`, with `--hints` for help
# 1. `reconstruct_linearly(training, x, count)` · 20 minutes, easy · the best linear autoencoder.
# 2. `image_tokens(image, patch, kernel, bias, class_token, positions)` · 25 minutes, medium · what a ViT reads.
# ## Recap
# An autoencoder learns a code by rebuilding its input; linear ones find principal components, nonlinear ones need fewer numbers; noise in the
# input keeps them from copying. A good code for rebuilding need not separate classes. ViT is BERT on patches.
# - **Glossary:** autoencoder 自编码器 · code 编码 · reconstruction 重建 · denoising 去噪 · principal components 主成分 · linear probe 线性探针 ·
#   patch 图像块 · class token 分类标记 · masked image modelling 掩码图像建模
# - **Common errors:** forgetting to subtract the mean, or to add it back · patches column by column · no position for the class token · judging a
#   representation by its reconstruction · comparing with no simple baseline.
# - **Next:** lesson 14, one history: from RNN to T5 on one corpus at one budget.
