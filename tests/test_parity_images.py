"""The digits and their baselines against scikit-learn."""

import numpy as np
import pytest

from minillm.data import images

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]  # third parties warn about themselves


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    theirs, ours = load_digits(), images.digits()
    np.testing.assert_array_equal(ours.images[..., 0] * 16, theirs.images)
    np.testing.assert_array_equal(ours.labels, theirs.target)


def test_a_vit_must_beat_logistic_regression():
    """What `test_a_tiny_vit_learns_to_read_digits` asks for, 95 % of the validation part, is more than this baseline reads."""
    from sklearn.linear_model import LogisticRegression

    training, validation = (images.split(images.digits(), part) for part in ("train", "validation"))
    flat = lambda dataset: dataset.images.reshape(len(dataset.labels), -1)
    fitted = LogisticRegression(max_iter=2000).fit(flat(training), training.labels)
    assert 0.93 < fitted.score(flat(validation), validation.labels) < 0.95
