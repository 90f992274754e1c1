"""A small labelled task, shared by the tests of whole labelled runs: reviews of which one word tells the sentiment."""

import random

GOOD, BAD, OTHER = (
    ["good", "fine", "great", "nice"],
    ["bad", "poor", "awful", "sad"],
    ["the", "a", "room", "book", "food", "screen"],
)
PRETRAIN = """
[pretrain]
objective = { name = "masked" }
train = { steps = 6, batch_size = 8, evaluate_every = 6 }
"""


def silent(*_):
    pass


def reviews(number: int = 300) -> str:
    """Lines of text:label, one class as often as the other."""
    generator, lines = random.Random(0), {}
    while len(lines) < number:
        label = ("neg", "pos")[len(lines) % 2]
        words = [generator.choice(OTHER) for _ in range(5)]
        words.insert(generator.randrange(6), generator.choice(GOOD if label == "pos" else BAD))
        lines[" ".join(words)] = label
    return "".join(f"{text}:{label}\n" for text, label in lines.items())


def config(
    path, *, data='source = "lines"\nlabels = ["neg", "pos"]', objective="classify", steps=80, kind="bpe", length=16
) -> str:
    """A tiny BERT on that file. `data`: more keys of its section; `kind`: of the tokenizer."""
    return f"""
name = "tiny"
[data]
path = "{path}"
{data}
validation = 0.2
test = 0.2
length = {length}
[tokenizer]
kind = "{kind}"
vocabulary = 300
[model]
kind = "bert"
context = {length}
layers = 1
width = 16
heads = 2
[objective]
name = "{objective}"
[train]
steps = {steps}
batch_size = 8
evaluate_every = {max(steps // 2, 1)}
[optimizer]
learning_rate = 1e-2
"""


def based(path, base) -> str:
    """The same on another run's parameters, tokenizer and model."""
    text = config(path)
    return f"{text[: text.index('[tokenizer]')]}{text[text.index('[objective]') :]}[base]\nrun = '{base}'\n"
