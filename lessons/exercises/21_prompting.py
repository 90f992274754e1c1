"""Exercises of lesson 21. Fill in the bodies, then run `minillm lessons check 21`."""

import numpy as np


def word_score(logits: np.ndarray, prompt: int, word: list) -> float:
    """log p(word | prompt): how likely a model that reads from left to right finds a word of several tokens. (15 minutes, easy)

    Args:
        logits: [length, vocabulary] floats, what the model says at each place of the row prompt + word; the logits at a
            place are about the token at the next one.
        prompt: how many tokens the prompt has; the word's first token stands at this place.
        word: its token ids.
    Returns:
        the sum over the word's tokens of the logarithm of their probability, in nats.
    """
    raise NotImplementedError("word_score: which places speak about the word, and what makes logits probabilities?")


def calibrate(scores: np.ndarray, content_free: np.ndarray) -> np.ndarray:
    """Answers that no longer lean to the words which the model prefers anyway. (20 minutes, medium)

        q_c = (p_c / e_c) / sum over k of (p_k / e_k)        e: the mean of p over prompts that say nothing

    Args:
        scores: [texts, classes] log-probabilities of the classes' words; softmax over classes gives p.
        content_free: [n, classes], the same for n prompts with texts such as "N/A".
    Returns:
        [texts, classes] probabilities q, whose rows sum to 1.
    """
    raise NotImplementedError("calibrate: what would the answer to a content-free prompt itself be?")
