# %% [markdown]
# # 01 Text to tokens
# **Sections:** 3.3.2, 4.3.2.1, 4.5.2.1
#
# - **You will be able to:** say what Unicode normalisation changes; run byte-pair encoding by hand; train SentencePiece on
#   English and Chinese so that `decode(encode(text)) == text`; compare models whose tokens differ, in bits per character.
# - **Prerequisites:** Python. No earlier lesson is needed. **Time:** 10 s on two cores; half an hour of reading.
# - **Expected:** the toy's first merge has count 11. A Chinese sentence costs 3 bytes per character, 3 tokens per character
#   under an English tokenizer, 0.59 under a Chinese one. Padding to 512 fills 98 % of the positions. 37 stop words are 35 %
#   of all words. Cleaning keeps 76 % of python-docs. Held-out characters per BPE token: 1.7 at a vocabulary of 512, 3.1 at
#   4096; meanwhile bits per token rise by about 1.9 and bits per character fall by about 0.6.

# %% [markdown]
# ## The question
# A network reads integers, not letters. Who decides which? The documents pass over it in a line: "clean, segment, encode".
# Yet this step fixes what the model can ever read and write, and whether two models' losses can be compared at all.
# ## Characters, bytes, normal forms
# A Python string is a sequence of Unicode *code points* (here: characters). UTF-8 writes each as 1 to 4 bytes. One picture
# on the screen may be several code points: é is one (U+00E9) or two (e and U+0301). Two normal forms matter:
# **NFC** composes, so it unifies spellings that look and mean the same. **NFKC** also replaces "compatibility" characters:
# ligatures, full-width letters, superscripts. NFC is nearly always harmless. NFKC suits search, where ＡＢＣ should find ABC;
# a model that should write x² or Chinese punctuation must not have it. Say which in the config (`data.normalization`).

# %%
import functools
import itertools
import keyword
import re
from collections import Counter

import numpy as np
from matplotlib import pyplot as plt
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from minillm.course.record import figure_path, report
from minillm.data import clean, corpora, tokenizer
from minillm.evaluation import ngram
from minillm.report.plot import COLOURS

for text in ["é", "e\u0301", "ﬁ", "Ａ１", "，", "。", "x²", "①", "模型"]:
    forms = f"NFC {clean.normalise(text, 'NFC')} NFKC {clean.normalise(text, 'NFKC')}"
    print(f"{text}: {len(text)} characters, {len(text.encode('utf8'))} bytes, {forms}")
assert clean.normalise("e\u0301 ﬁx²，。", "NFC") == "é ﬁx²，。"  # the same letter, spelled once
assert clean.normalise("ﬁx²，。", "NFKC") == "fix2,。"  # no square; a Chinese comma turns ASCII, the full stop does not
CHINESE = ["语言模型预测下一个词。", "我们用计数训练语言模型。", "这个模型很小，但是很有用。", "分词不靠空格，模型自己学习。",
           "学习语言模型，先学习计数。", "词表越大，序列越短。", "模型预测下一个字，也预测标点。", "小模型也能学习语言。"]  # fmt: skip
characters = sum(map(len, CHINESE))
bytes_per_character = sum(len(text.encode("utf8")) for text in CHINESE) / characters

# %% [markdown]
# ## Byte-pair encoding by hand
# Words are too many and never complete; characters make sequences long. Byte-pair encoding (Sennrich, Haddow and Birch
# 2016) lies between: start from characters and repeatedly *join the most frequent pair of neighbours*. On paper, with
# "the" 6 times, "then" 3 times, "hen" twice and "ten" once:
#
#     he:  6 + 3 + 2 = 11 (the winner)    th: 6 + 3 = 9    en: 3 + 2 + 1 = 6    te: 1
#     then t+he: 9 -> "the";    then the+n: 3 -> "then";    then he+n: 2 -> "hen";    the rest is a tie
#
# Programs break ties differently, so the corpus is chosen such that the first four winners are unique. New text is *encoded*
# by the merges in the order in which they were learned. SentencePiece trains the same (4 control symbols, newline, space,
# 4 letters, 4 merges: 14 ids), and must agree on strings that were never seen.


# %%
def join(word: str, pair: tuple[str, str]) -> str:
    """ "t h e" and (h, e) -> "t he": symbols stand between spaces, as in the code of the paper."""
    return re.sub(rf"(?<!\S){re.escape(' '.join(pair))}(?!\S)", "".join(pair), word)


def naive_bpe(words: dict[str, int], merges: int) -> list[tuple[tuple[str, str], int]]:
    """The first merges and their counts, in order. Raises: AssertionError where a winner is not unique."""
    words, order = {" ".join(word): count for word, count in words.items()}, []
    for _ in range(merges):
        pairs = Counter()
        for word, count in words.items():
            for pair in itertools.pairwise(word.split()):
                pairs[pair] += count
        (best, seen), (_, second) = pairs.most_common(2)
        assert seen > second, "a tie"
        order.append((best, seen))
        words = {join(word, best): count for word, count in words.items()}
    return order


WORDS = {"the": 6, "then": 3, "hen": 2, "ten": 1}
merges = naive_bpe(WORDS, merges=4)
assert merges == [(("h", "e"), 11), (("t", "he"), 9), (("the", "n"), 3), (("he", "n"), 2)]
toy_file, corpus = figure_path("01", "toy.model"), [word for word, count in WORDS.items() for _ in range(count)]
tokenizer.train(corpus, 14, "bpe", byte_fallback=False, model_file=toy_file)
toy, random = tokenizer.load(toy_file), np.random.default_rng(0)
for _ in range(500):
    text = "".join(random.choice(list("then"), size=random.integers(1, 12)))
    symbols = functools.reduce(join, (pair for pair, _ in merges), " ".join(text))
    assert symbols.split() == toy.pieces(text)
print(text, "->", symbols)

# %% [markdown]
# ## The library's tokenizer
# SentencePiece (Kudo and Richardson 2018) treats the space as a character, written ▁, and needs no segmentation: for
# Chinese, pieces grow from frequent neighbours alone. `kind` is "bpe", "unigram" (start with many pieces, drop those
# that the likelihood misses least) or "char". **Byte fallback** spells an unknown character as its UTF-8 bytes;
# without it the character becomes `<unk>` and is lost.

# %%
chinese = {}
for kind, fallback in (("char", True), ("bpe", True), ("bpe", False)):
    model_file = figure_path("01", f"chinese-{kind}-{fallback}.model")
    size = 6 + 256 * fallback + len(set("".join(CHINESE))) + 20 * (kind == "bpe")  # bpe: 20 merges
    tokenizer.train(CHINESE, size, kind, byte_fallback=fallback, model_file=model_file)
    chinese[kind, fallback] = model = tokenizer.load(model_file)
    for text in ("语言模型学习预测下一个词。", "数据"):
        back = model.decode(model.encode(text))
        print(f"{kind:5} byte fallback {fallback!s:5} {' '.join(model.pieces(text))} -> {back}")
assert chinese["bpe", True].decode(chinese["bpe", True].encode("数据 𝄞 é\n")) == "数据 𝄞 é\n"
assert chinese["bpe", False].decode(chinese["bpe", False].encode("数据")) != "数据"

# %% [markdown]
# **Why SentencePiece's defaults do not round-trip:** they apply NFKC, put a space in front and merge runs of spaces.
# Fine for translation scored by words; a language model of code loses its indentation, and is scored on an easier text.
# ## Somebody else's vocabulary
# Section 4.5.2.1 takes a ready-made *English, uncased* vocabulary and pads every text to 512. Look before copying: lower
# case cannot be undone ("US", "us"), another language falls apart into bytes (here) or unknowns (there), and every
# layer pays for the padding. For English sentences the vocabulary is fine; for Chinese reviews take a Chinese one, and
# pad to the longest text of the batch. (Ours was trained on these very sentences: its number is flattering.)

# %%
documents, cleaning = clean.clean(corpora.read("python-docs"), normalization="NFC", drop_repeated_lines=True)
texts, english_file = (
    [d.text for d in clean.split(documents, 0.1, 0.0, seed=0).train],
    figure_path("01", "english.model"),
)
tokenizer.train(texts, 1024, "bpe", model_file=english_file)
english, default_file = tokenizer.load(english_file), english_file.with_name("default.model")
lines, prefix = (line for text in texts for line in text.split("\n")), str(default_file.with_suffix(""))
SentencePieceTrainer.train(sentence_iterator=lines, model_prefix=prefix, vocab_size=1024, minloglevel=2)
default = SentencePieceProcessor(model_file=str(default_file))
for text in ("if x:\n    return y", " x² ﬁ"):
    print(f"{text!r} -> defaults {default.decode(default.encode(text))!r}")
    assert english.decode(english.encode(text)) == text != default.decode(default.encode(text))
of_english = sum(map(len, english.encode_many(CHINESE))) / characters
of_chinese = sum(map(len, chinese["bpe", True].encode_many(CHINESE))) / characters
padding = 1 - characters / len(CHINESE) / 512  # at one token per character
print(f"tokens per Chinese character: {of_english:.2f} by English, {of_chinese:.2f} by Chinese; padding {padding:.1%}")

# %% [markdown]
# ## Cleaning, and a kind correction
# Cleaning must report what it removed. `clean.clean` removes exact duplicates and, when asked, lines seen before: the
# topics of python-docs quote each other, and a held-out line that also stands in the training part measures memory.
# Normalise first: two reviews that differ by full-width letters are one text only after NFKC.
#
# Section 3.3.2 lists *removing stop words* as a preparation for language modelling. The step comes from search and
# bag-of-words classification, where "the" says little about the topic, and has its place there. A language model must
# *produce* text: a word removed before training is never written. And the lists hold words that turn a meaning round
# ("not"; in Chinese 不) and, in this corpus, much of Python itself.

# %%
print(cleaning)
twins = [corpora.Document("1", "模型ＯＫ！"), corpora.Document("2", "模型OK!")]
assert [len(clean.clean(twins, form)[0]) for form in ("NFC", "NFKC")] == [2, 1]
STOP = {"a", "an", "and", "are", "as", "at", "be", "been", "but", "by", "for", "from", "had", "has", "have", "if", "in",
        "into", "is", "it", "its", "no", "not", "of", "on", "or", "that", "the", "their", "then", "there", "these", "this",
        "to", "was", "while", "with"}  # fmt: skip
words = [word for d in documents for word in re.findall(r"[A-Za-z_]+", d.text.lower())]
stop_share = sum(word in STOP for word in words) / len(words)
for text in ("the value is not in the list", "the value is in the list", "return x if x is not None"):
    print(f"{text!r} -> {' '.join(word for word in text.split() if word not in STOP)!r}")
print(f"{len(STOP)} stop words, {stop_share:.1%} of all words; keywords of Python:", *sorted(STOP & {*keyword.kwlist}))

# %% [markdown]
# ## Predict before you run
# 261 of 512 ids are control symbols, newline and bytes; at 4096 ids there are 15 times as many pieces. By how much do
# *characters per token* grow: 15, 8, 3, 1.7 times? With one bigram model on those tokens, does a *token* become easier
# to predict? A *character*? (Lesson 02 opens that box; here it gives each token a probability $p$.)
#
# With $N$ tokens, $C$ characters and $-\log p$ in nats,
# $$\text{bits per token} = \frac{-\sum \log p}{N \ln 2}, \qquad
#   \text{bits per character} = \frac{-\sum \log p}{C \ln 2} = \frac{\text{bits per token}}{\text{characters per token}}$$
# By hand: 6 bits per token at 2 characters per token is 3 bits per character; 8 bits at 4 is 2, the better model.
# $C$ belongs to the text, $N$ to the tokenizer: only the second number compares. Below: three splits by topic, tokenizers
# trained on the training part only, scores held out; single characters are the baseline.


# %%
def measure(kind: str, size: int, seed: int) -> tuple[float, float, float]:
    """Held-out characters per token, bits per token, bits per character."""
    train, held_out, _ = clean.split(documents, validation=0.1, test=0.0, seed=seed)
    tokenizer.train([d.text for d in train], size, kind, model_file=figure_path("01", "experiment.model"))
    pieces = tokenizer.load(figure_path("01", "experiment.model"))
    ids = [[[pieces.bos, *pieces.encode(d.text), pieces.eos] for d in part] for part in (train, held_out)]
    nats, tokens = ngram.negative_log_likelihood(ngram.fit(ids[0], 2, pieces.vocabulary), ids[1])
    length = sum(len(d.text) for d in held_out)
    return length / tokens, nats / tokens / np.log(2), nats / length / np.log(2)


SIZES, SEEDS = (512, 1024, 2048, 4096), (0, 1, 2)
baseline = np.mean([measure("char", 512, seed) for seed in SEEDS], axis=0)  # "char" needs fewer than 512 ids
bpe = np.array([[measure("bpe", size, seed) for seed in SEEDS] for size in SIZES])  # [size, seed, 3]
unigram = np.array([[measure("unigram", size, seed) for seed in SEEDS] for size in SIZES])
print("characters per token, bits per token, bits per character; baseline", baseline.round(2))
for size, *rows in zip(SIZES, bpe.mean(1).round(2), unigram.mean(1).round(2), strict=True):
    print(f"{size:5} bpe {rows[0]} unigram {rows[1]}")
figure, panels = plt.subplots(1, 2, figsize=(10, 4), dpi=120, layout="constrained")
curves = ((0, bpe[..., 0], "BPE"), (0, unigram[..., 0], "unigram"),
          (1, bpe[..., 1], "bits per token"), (1, bpe[..., 2], "bits per character"))  # fmt: skip
for (panel, values, name), colour in zip(curves, COLOURS, strict=False):
    panels[panel].plot(SIZES, values.mean(1), color=colour, label=name)
    panels[panel].plot(SIZES, values, "o", color=colour, alpha=0.4)
panels[0].set(ylabel="held-out characters per token", ylim=(0, 3.6))
panels[1].set(ylabel="held-out bits of a BPE bigram", ylim=(0, 8))
for axes, level in zip(panels, (baseline[0], baseline[2]), strict=True):
    axes.axhline(level, color="grey", linestyle="--", label="single characters (baseline)")
    axes.set_xscale("log", base=2)
    axes.set_xticks(SIZES, SIZES)
    axes.set_xlabel("vocabulary (ids)")
    axes.legend(frameon=False)
figure.savefig(figure_path("01", "tokens.png"))

# %% [markdown]
# **What to read from the figure** (dots: splits; lines: means). Left: more pieces are longer pieces, but each doubling
# adds less, because the new ones are rarer. Right: the same model on the same text looks *worse* with a larger vocabulary
# in bits per token, *better* in bits per character. Whoever compares perplexity across tokenizers reads the wrong curve.
# ## What this toy does not show
# That a larger vocabulary is better: a bigram of longer pieces merely sees more characters; a Transformer has other ways to
# see them and pays for ids in parameters. python-docs is small and technical, eight Chinese sentences show a mechanism and
# not its rates, and nothing here says which cleaning is right for your task.

# %%
tokens, bits, per_character = bpe.mean(1).T  # each [size]
report("01", {
    "first merge count": merges[0][1], "bytes per Chinese character": bytes_per_character,
    "tokens per Chinese character, English tokenizer": of_english, "padding share at 512": padding,
    "tokens per Chinese character, Chinese tokenizer": of_chinese,
    "stop words' share of words": stop_share, "characters kept by cleaning": cleaning.characters_after / cleaning.characters_before,
    "characters per token, bpe 512": tokens[0], "characters per token, bpe 4096": tokens[-1],
    "bits per token gained, 512 to 4096": bits[-1] - bits[0],
    "bits per character saved, 512 to 4096": per_character[0] - per_character[-1],
})  # fmt: skip

# %% [markdown]
# **Exercises** (`lessons/exercises/01_tokens.py` or a copy; then `minillm lessons check 01 [FILE]`, `--hints` when stuck):
# 1. `merge_pair(sequence, pair)`: one merge on a list of symbols (10 minutes, easy).
# 2. `byte_fallback(text, vocabulary)`: characters, or bytes where the vocabulary lacks them (15 minutes, medium).
#
# - **Recap:** the tokenizer is part of the model. NFC unifies spellings, NFKC changes text; the round trip is a test, not a
#   hope. Clean with a report, remove duplicates before splitting, keep the stop words, compare in bits per character.
# - **Glossary:** token 词元; subword 子词; vocabulary 词表; normalisation 规范化; byte-pair encoding 字节对编码;
#   byte fallback 字节回退; full-width 全角; word segmentation 分词; stop word 停用词; bits per character 每字符比特数.
# - **Common errors:** a tokenizer trained on held-out text; bytes counted as characters; perplexity compared across
#   tokenizers; NFKC unnoticed; `strip()` and lower case "to be safe". **Next:** 02, where those probabilities come from.
