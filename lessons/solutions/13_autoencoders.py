"""Solutions of lesson 13."""

import numpy as np


def reconstruct_linearly(training, x, count):
    """Centre, decompose, project, add the mean back."""
    mean = np.mean(training, axis=0)
    directions = np.linalg.svd(training - mean, full_matrices=False)[2][:count]  # [count, d], by falling variance
    return mean + (x - mean) @ directions.T @ directions


def image_tokens(image, patch, kernel, bias, class_token, positions):
    """Cut by reshaping: [rows, patch, columns, patch, channels], then both patch axes behind rows and columns."""
    height, width, channels = np.shape(image)
    cut = np.reshape(image, (height // patch, patch, width // patch, patch, channels)).swapaxes(1, 2)
    tokens = cut.reshape(-1, patch * patch * channels) @ np.asarray(kernel) + np.asarray(bias)
    return np.concatenate([np.asarray(class_token)[None], tokens]) + np.asarray(positions)
