"""Images as data: pure batches, a split that holds, corruptions with the statistics that they promise."""

import gzip
import zipfile

import numpy as np
import pytest

from minillm.data import fetch, images
from minillm.errors import UserError

DIGITS = images.digits()


def make(count=40, size=6):
    generator = np.random.default_rng(0)
    return images.ImageDataset(
        generator.random((count, size, size, 1), np.float32), np.arange(count, dtype=np.int32) % 3
    )


def test_digits_are_1797_images_in_the_unit_interval():
    assert DIGITS.images.shape == (1797, 8, 8, 1)
    assert DIGITS.images.dtype == np.float32
    assert (DIGITS.images.min(), DIGITS.images.max()) == (0.0, 1.0)
    assert np.bincount(DIGITS.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_parts_are_disjoint_stratified_and_fixed():
    parts = {part: images.split(DIGITS, part) for part in images.SHARES}
    assert {part: len(found.labels) for part, found in parts.items()} == {"train": 1258, "validation": 270, "test": 269}
    rows = [tuple(row) for found in parts.values() for row in found.images.reshape(-1, 64).tolist()]
    assert sorted(rows) == sorted(tuple(row) for row in DIGITS.images.reshape(-1, 64).tolist())
    for part, found in parts.items():
        counts = np.bincount(found.labels) / np.bincount(DIGITS.labels)
        np.testing.assert_allclose(counts, images.SHARES[part], atol=0.006)
        np.testing.assert_array_equal(images.split(DIGITS, part).images, found.images)
    with pytest.raises(ValueError, match="unknown part 'dev'"):
        images.split(DIGITS, "dev")


def test_batches_are_pure_and_an_epoch_shows_every_image_once():
    dataset = make()
    batches = [images.image_batch_at(dataset, 1, step, 8) for step in range(10)]
    again = images.image_batch_at(dataset, 1, 3, 8)
    for name, leaf in again.items():
        np.testing.assert_array_equal(leaf, batches[3][name])
    for epoch in (batches[:5], batches[5:]):
        seen = np.concatenate([batch["images"] for batch in epoch]).reshape(40, -1)
        assert sorted(map(tuple, seen)) == sorted(map(tuple, dataset.images.reshape(40, -1)))
    assert not np.array_equal(batches[0]["images"], batches[5]["images"])
    assert not np.array_equal(batches[0]["images"], images.image_batch_at(dataset, 2, 0, 8)["images"])
    place = [np.flatnonzero((dataset.images == image).all((1, 2, 3)))[0] for image in batches[0]["images"]]
    np.testing.assert_array_equal(dataset.labels[place], batches[0]["labels"])


def test_evaluation_counts_every_image_once():
    dataset = make(11)
    batches = list(images.image_evaluation_batches(dataset, 4))
    assert [batch["images"].shape[0] for batch in batches] == [4, 4, 4]
    kept = np.concatenate([batch["weights"] for batch in batches]) > 0
    for name, leaf in (("images", dataset.images), ("labels", dataset.labels)):
        np.testing.assert_array_equal(np.concatenate([batch[name] for batch in batches])[kept], leaf)


def test_shifts_move_and_fill_with_zeros():
    image = np.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    moved = images.shift(np.repeat(image, 4, 0), np.array([[0, 0], [1, 0], [-1, 1], [0, -2]]))[..., 0]
    np.testing.assert_array_equal(moved[0], image[0, ..., 0])
    np.testing.assert_array_equal(moved[1], [[0, 0, 0], [1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(moved[2], [[0, 4, 5], [0, 7, 8], [0, 0, 0]])
    np.testing.assert_array_equal(moved[3], [[3, 0, 0], [6, 0, 0], [9, 0, 0]])
    plain, shifted = (images.image_batch_at(make(), 0, 2, 40, shifts) for shifts in (0, 1))
    assert not np.array_equal(plain["images"], shifted["images"])
    np.testing.assert_array_equal(plain["images"][:, 1:-1, 1:-1].shape, (40, 4, 4, 1))
    same = [(a == b).all() for a, b in zip(plain["images"], shifted["images"], strict=True)]
    assert 0 < sum(same) < 15  # one image in nine stays where it is
    dot = images.ImageDataset(np.zeros((1, 5, 5, 1), np.float32), np.zeros(1, np.int32))
    dot.images[0, 2, 2] = 1.0
    places = np.argwhere(images.image_batch_at(dot, 0, 0, 200, 1)["images"])[:, 1:3]
    assert {tuple(place) for place in places} == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}


@pytest.mark.parametrize(("kind", "rate"), [("zero", 0.3), ("gaussian", 0.2)])
def test_corruption_has_its_rate_and_leaves_the_rest(kind, rate):
    batch = images.image_batch_at(make(400), 0, 0, 400)
    corrupted = images.corrupt_pixels(batch, 0, 5, kind, rate)
    np.testing.assert_array_equal(corrupted["clean"], batch["images"])
    assert corrupted["images"].dtype == np.float32
    change = corrupted["images"] - batch["images"]
    if kind == "zero":
        hit = change != 0.0
        assert abs(hit.mean() - rate) < 0.01
        assert (corrupted["images"][hit] == 0.0).all()
    else:
        assert abs(change.mean()) < 0.01
        assert abs(change.std() - rate) < 0.01
    for name, leaf in images.corrupt_pixels(batch, 0, 5, kind, rate).items():
        np.testing.assert_array_equal(leaf, corrupted[name])
    assert not np.array_equal(images.corrupt_pixels(batch, 0, 6, kind, rate)["images"], corrupted["images"])
    np.testing.assert_array_equal(images.corrupt_pixels(batch, 0, 5, kind, 0.0)["images"], batch["images"])


def test_corruption_refuses_what_is_no_noise():
    batch = images.image_batch_at(make(), 0, 0, 4)
    for kind, rate in (("salt", 0.1), ("zero", 1.1), ("gaussian", -0.1)):
        with pytest.raises(ValueError, match="noise must be one of"):
            images.corrupt_pixels(batch, 0, 0, kind, rate)


def test_masked_patches_are_a_fixed_share_in_random_places():
    batch = images.mask_patches(images.image_batch_at(make(), 0, 0, 40), 0, 1, 2, 0.5)
    assert batch["masked_patches"].shape == (40, 9)
    assert (batch["masked_patches"].sum(1) == 4).all()  # round(4.5) is 4
    assert len({tuple(row) for row in batch["masked_patches"].tolist()}) > 20
    np.testing.assert_array_equal(batch["targets"][7, 4], batch["images"][7, 2:4, 2:4].reshape(-1))
    assert (images.mask_patches(batch, 0, 1, 2, 0.01)["masked_patches"].sum(1) == 1).all()


def test_a_wheel_of_another_platform_is_asked_for_by_name(monkeypatch, tmp_path):
    """pip is told the platform, and whoever fetches by hand is told the same command."""
    monkeypatch.setenv("MINILLM_CACHE", str(tmp_path))
    calls = []

    def refuse(command, **options):
        calls.append(command)
        return type("Done", (), {"returncode": 1, "stderr": "ERROR: no network"})()

    monkeypatch.setattr(fetch.subprocess, "run", refuse)
    with pytest.raises(UserError, match="--platform win32 --python-version 36 --implementation cp scikit-learn==0"):
        fetch.fetch("digits")
    assert "win32" in calls[0]


def test_digits_are_read_from_the_archive_without_scikit_learn(monkeypatch, tmp_path):
    path = tmp_path / "fake.whl"
    rows = "\n".join(",".join(["16", *["0"] * 63, str(label)]) for label in (3, 7))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sklearn/datasets/data/digits.csv.gz", gzip.compress(rows.encode()))
        archive.writestr("sklearn/datasets/data/iris.csv", "1,2")
    monkeypatch.setattr(fetch, "fetch", lambda name: path)
    found = images.digits()
    assert found.labels.tolist() == [3, 7]
    assert found.images[:, 0, 0, 0].tolist() == [1.0, 1.0]
    assert found.images.sum() == 2.0
