"""Solutions of lesson 03."""

import numpy as np


def softmax_cross_entropy_gradient(logits, targets, weights):
    """w_i (p_i - y_i) / sum of w."""
    logits, weights = np.asarray(logits), np.asarray(weights)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = p / p.sum(axis=1, keepdims=True)
    y = np.eye(logits.shape[1])[np.asarray(targets)]
    return weights[:, None] * (p - y) / weights.sum()


def adamw_update(parameter, gradient, first, second, step, rate, beta1=0.9, beta2=0.95, epsilon=1e-8, decay=0.1):
    """Moments, bias correction, then step and decay side by side."""
    first = beta1 * first + (1 - beta1) * gradient
    second = beta2 * second + (1 - beta2) * gradient**2
    mean, square = first / (1 - beta1**step), second / (1 - beta2**step)
    parameter = parameter - rate * (mean / (np.sqrt(square) + epsilon) + decay * parameter)
    return parameter, first, second
