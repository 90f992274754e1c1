"""Few labels: which texts have one, which are wrong, and objectives that learn from the others or from each other."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import config as configs
from minillm import params
from minillm.data import annotation, rows, views
from minillm.data.document import Document
from minillm.errors import UserError
from minillm.evaluation import noise
from minillm.evaluation.similarity import nearest_accuracy
from minillm.experiment import supervised
from minillm.experiment.many import labels_bought
from minillm.experiment.recipes import annotation as bought
from minillm.experiment.recipes import few, teacher
from minillm.models import bert
from minillm.models.contract import bind
from minillm.objectives import consistency, contrastive
from minillm.objectives.contract import total_loss
from minillm.objectives.joint import joint, own_part
from minillm.objectives.pseudo import with_pseudo_labels
from minillm.objectives.supervised import classify, head_scores
from minillm.training.step import accumulate, make_gradient
from minillm.tuning.freeze import full

KEY = jax.random.key(3)
CONFIG = bert.Config(
    20, context=8, layers=1, width=8, heads=2, labels=3, tasks=("classify",), dropout=0.3, init_scale=0.3
)
MODEL = bind(bert, CONFIG)
PARAMS = params.init_params(bert.param_specs(CONFIG), jax.random.key(0))


def make_batch(count=4, seed=0, name=""):
    random = np.random.default_rng(seed)
    lengths = random.integers(3, 7, count)
    mask = np.arange(6) < lengths[:, None]
    batch = {"tokens": np.where(mask, random.integers(4, 20, (count, 6)), 0).astype(np.int32), "mask": mask,
             "labels": random.integers(0, 3, count).astype(np.int32), "index": np.arange(count, dtype=np.int32),
             "weights": np.array([1.0] * (count - 1) + [0.0], np.float32)}  # fmt: skip
    return {name + key: jnp.asarray(leaf) for key, leaf in batch.items()}


def documents(sizes=(40, 20, 5)):
    return [Document(f"{c}/{n}", f"text {c} {n}", "abc"[c]) for c, size in enumerate(sizes) for n in range(size)]


def test_the_labels_of_a_small_budget_are_among_those_of_a_large_one_and_each_class_has_its_share():
    found = {count: annotation.choose(documents(), count, seed=1) for count in (3, 13, 26, 65)}
    for small, large in ((3, 13), (13, 26), (26, 65)):
        assert not (found[small] & ~found[large]).any()
    shares = lambda chosen: [chosen[:40].sum(), chosen[40:60].sum(), chosen[60:].sum()]
    assert [shares(chosen) for chosen in found.values()] == [[1, 1, 1], [8, 4, 1], [16, 8, 2], [40, 20, 5]]
    assert (annotation.choose(documents(), 13, seed=2) != found[13]).any()
    for count in (2, 66):
        with pytest.raises(UserError, match="labels for 65 training texts of 3 classes"):
            annotation.choose(documents(), count, 0)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.37, 0.9])
def test_exactly_so_many_labels_are_made_wrong(rate):
    labels = np.repeat([0, 1, 2], [30, 50, 21])
    flipped = annotation.flip(labels, 3, rate, seed=5)
    assert (flipped != labels).sum() == round(rate * 101)
    assert set(flipped) <= {0, 1, 2}
    pairs = annotation.flip(labels, 3, rate, seed=5, kind="pair")
    wrong = pairs != labels
    assert [wrong[labels == c].sum() for c in range(3)] == [round(rate * n) for n in (30, 50, 21)]
    assert ((pairs - labels)[wrong] % 3 == 1).all()
    if rate > 0.3:  # any other class, each about as often
        assert len(set(zip(labels[flipped != labels], flipped[flipped != labels], strict=True))) == 6


def naive_find_wrong(labels, probabilities):
    found = []
    thresholds = [np.mean([p[c] for y, p in zip(labels, probabilities, strict=True) if y == c]) for c in range(3)]
    for label, row in zip(labels, probabilities, strict=True):
        sure = [c for c in range(3) if row[c] >= thresholds[c]]
        found.append(bool(sure) and max(sure, key=lambda c: row[c]) != label)
    return np.array(found)


def test_confident_learning_is_the_paper_s_rule_and_finds_what_is_contradicted():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 200)
    noisy = annotation.flip(labels, 3, 0.2, seed=0)
    probabilities = random.dirichlet([0.5] * 3, 200) * 0.3 + 0.7 * np.eye(3)[labels]
    found = noise.find_wrong(noisy, probabilities)
    np.testing.assert_array_equal(found, naive_find_wrong(noisy, probabilities))
    judged = noise.judge_finding(found, noisy != labels)
    assert judged["recall"] > 0.9 > judged["chance"] == pytest.approx(0.2)
    assert judged["precision"] > 0.9
    with np.errstate(all="raise"):  # a class without an example is nobody's right class
        assert not noise.find_wrong(np.array([0, 1]), np.array([[0.1, 0.0, 0.9], [0.0, 0.1, 0.9]])).any()


def test_out_of_fold_probabilities_come_from_models_that_have_not_seen_the_example():
    labels, seen = np.repeat([0, 1], [30, 10]), []

    def fit(places, others):
        seen.append((set(places), set(others), labels[others].sum()))
        return np.eye(2)[labels[others]]

    np.testing.assert_array_equal(noise.out_of_fold(fit, labels), np.eye(2)[labels])
    assert all(not places & others and len(places | others) == 40 for places, others, _ in seen)
    assert set.union(*(others for _, others, _ in seen)) == set(range(40))
    assert [count for _, _, count in seen] == [2] * 5  # each fold its share of each class


def numpy_simcse(first, second, real, temperature):
    rows = [row for row in range(len(first)) if real[row]]
    losses = {}
    for i in rows:
        scores = np.array([first[i] @ second[j] / temperature for j in rows])
        losses[i] = np.log(np.exp(scores).sum()) - first[i] @ second[i] / temperature
    return losses


def numpy_supervised(vectors, labels, real, temperature):
    rows, losses = [row for row in range(len(labels)) if real[row]], {}
    for i in rows:
        others = [a for a in rows if a != i]
        bottom = np.log(sum(np.exp(vectors[i] @ vectors[a] / temperature) for a in others))
        shares = [vectors[i] @ vectors[p] / temperature - bottom for p in others if labels[p] == labels[i]]
        if shares:
            losses[i] = -np.mean(shares)
    return losses


def test_contrastive_losses_are_their_equations_and_rows_of_weight_zero_meet_nobody():
    random = np.random.default_rng(1)
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)
    first, second = (unit(random.normal(size=(6, 5))).astype(np.float32) for _ in range(2))
    real, labels = np.array([1, 1, 0, 1, 1, 1], bool), np.array([0, 1, 0, 1, 1, 2])
    as_jax = lambda *arrays: [jnp.asarray(array) for array in arrays]
    losses, _ = contrastive.view_losses(*as_jax(first, second, real), 0.2)
    for row, expected in numpy_simcse(first, second, real, 0.2).items():
        assert float(losses[row]) == pytest.approx(expected, abs=1e-5)
    losses, paired = contrastive.label_losses(*as_jax(first, labels, real), 0.2)
    expected = numpy_supervised(first, labels, real, 0.2)
    assert np.flatnonzero(paired).tolist() == list(expected) == [1, 3, 4]  # 0 and 5 have no partner, 2 is none
    for row in range(6):
        assert float(losses[row]) == pytest.approx(expected.get(row, 0.0), abs=1e-5)
    batch = make_batch()
    worse = batch | {"tokens": jnp.where(batch["weights"][:, None] > 0, batch["tokens"], 7)}
    read = jax.jit(lambda batch: contrastive.simcse(MODEL, PARAMS, batch, KEY))
    found = [total_loss(sums, sums.weights, {}) for sums in map(read, (batch, worse))]
    assert float(found[0]) == pytest.approx(float(found[1]), rel=1e-6)


def test_pooling_by_mean_leaves_padding_out_and_by_first_takes_the_class_token():
    hidden, mask = jax.random.normal(KEY, (2, 4, 3)), jnp.array([[1, 1, 0, 0], [1, 1, 1, 1]], bool)
    expected = np.array(hidden[0, :2].mean(0))
    np.testing.assert_allclose(
        contrastive.unit_vectors(hidden, mask, "mean")[0], expected / np.linalg.norm(expected), rtol=1e-5
    )
    first = np.array(hidden[1, 0])
    np.testing.assert_allclose(
        contrastive.unit_vectors(hidden, mask, "first")[1], first / np.linalg.norm(first), rtol=1e-5
    )


def test_nearest_accuracy_is_that_of_a_nearest_neighbour():
    from scipy import sparse
    from sklearn.neighbors import KNeighborsClassifier

    random = np.random.default_rng(2)
    train, test, labels, asked = (
        random.normal(size=(60, 5)),
        random.normal(size=(700, 5)),
        *(random.integers(0, 3, count) for count in (60, 700)),
    )
    expected = KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(train, labels).score(test, asked)
    for form in (np.asarray, sparse.csr_matrix):
        assert nearest_accuracy(form(train), labels, form(test), asked) == pytest.approx(expected)


def test_r_drop_is_the_mean_of_two_readings_and_their_divergence():
    batch = make_batch()
    sums = consistency.r_drop(MODEL, PARAMS, batch, KEY)
    again = batch | {"index": batch["index"] + contrastive.SECOND_VIEW}
    views_of = [classify(MODEL, PARAMS, part, KEY) for part in (batch, again)]
    expected = sum(float(s.sums["loss"]) for s in views_of)
    assert float(sums.sums["loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(sums.weights["loss"]) == 6.0
    p, q = (np.array(jax.nn.softmax(head_scores(MODEL, PARAMS, part, KEY, "classify"))) for part in (batch, again))
    both = ((p * np.log(p / q)).sum(1) + (q * np.log(q / p)).sum(1)) / 2
    assert float(sums.sums["consistency"]) == pytest.approx(float((both * batch["weights"]).sum()), rel=1e-4)
    assert float(sums.sums["consistency"]) > 1e-3


def test_uda_learns_from_the_noised_view_alone_what_it_is_sure_of():
    unlabelled, noised = make_batch(seed=1, name="unlabelled/"), make_batch(seed=2, name="noised/")
    batch = make_batch() | unlabelled | noised
    objective = consistency.uda(classify, threshold=0.0, temperature=0.5)
    sums = objective(MODEL, PARAMS, batch, KEY)
    plain = classify(MODEL, PARAMS, make_batch(), KEY)
    assert float(sums.sums["loss"]) == float(plain.sums["loss"])
    said = head_scores(MODEL, PARAMS, consistency.part_of(batch, "unlabelled/"), None, "classify")
    noisy = consistency.part_of(batch, "noised/")
    scores = head_scores(MODEL, PARAMS, noisy, jax.random.fold_in(KEY, 1), "classify")
    losses = -(jax.nn.softmax(said / 0.5) * jax.nn.log_softmax(scores)).sum(-1)
    assert float(sums.sums["consistency"]) == pytest.approx(float((losses * noisy["weights"]).sum()), rel=1e-5)
    unsure = consistency.uda(classify, threshold=1.0)(MODEL, PARAMS, batch, KEY)
    assert float(unsure.sums["consistency"]) == 0.0
    assert float(unsure.weights["consistency"]) == 3.0  # all texts: the weight knows no parameter


def test_soft_pseudo_labels_that_are_sure_are_hard_ones():
    hard = make_batch() | make_batch(seed=1, name="pseudo/")
    soft = hard | {"pseudo/labels": jnp.eye(3)[hard["pseudo/labels"]]}
    found = [with_pseudo_labels(classify)(MODEL, PARAMS, batch, KEY) for batch in (hard, soft)]
    assert float(found[0].sums["pseudo"]) == pytest.approx(float(found[1].sums["pseudo"]), rel=1e-6)
    other = classify(MODEL, PARAMS, make_batch(seed=1), jax.random.fold_in(KEY, 2))
    assert float(found[0].sums["pseudo"]) == pytest.approx(float(other.sums["loss"]), rel=1e-6)
    assert float(found[0].sums["loss"]) == float(classify(MODEL, PARAMS, make_batch(), KEY).sums["loss"])


@pytest.mark.slow
def test_shards_give_the_whole_batch_s_gradient():
    batch = make_batch() | make_batch(8, 1, "pseudo/") | make_batch(2, 2, "unlabelled/") | make_batch(2, 3, "noised/")
    objective = with_pseudo_labels(consistency.uda(consistency.r_drop, threshold=0.0))
    gradient = make_gradient(objective, MODEL, full(), {"pseudo": 0.5, "consistency": 2.0})
    (whole, _), (parted, _) = (jax.jit(g)(PARAMS, {}, {}, batch, KEY) for g in (gradient, accumulate(gradient, 2)))
    for path, leaf in params.flatten(whole).items():
        np.testing.assert_allclose(params.flatten(parted)[path], leaf, rtol=1e-4, atol=1e-6, err_msg=path)


def test_objectives_whose_examples_interact_refuse_shards():
    supervised = functools.partial(contrastive.classify_contrastive, temperature=0.2)
    wrapped = with_pseudo_labels(consistency.uda(supervised))
    for objective in (contrastive.simcse, supervised, wrapped, joint({"a": own_part("a", wrapped)})):
        with pytest.raises(ValueError, match="cannot be accumulated over shards"):
            accumulate(make_gradient(objective, MODEL, full(), {}), 2)


def test_noise_replaces_ordinary_tokens_of_its_share_and_nothing_else():
    random = np.random.default_rng(0)
    ids = [random.integers(4, 50, random.integers(5, 30)).tolist() for _ in range(200)]
    data = rows.text_rows(ids, None, np.zeros(200, np.int32), 24, rows.Frame(1, 2, 0))
    pool = views.token_pool(data, (1, 2, 0))
    batch = rows.row_batch_at(data, 0, 0, 100)
    found = views.replace_tokens(batch, pool, 0, 0, 0.3, (1, 2, 0))
    changed, ordinary = found["tokens"] != batch["tokens"], batch["mask"] & ~np.isin(batch["tokens"], (1, 2, 0))
    assert not (changed & ~ordinary).any()
    assert changed.sum() / ordinary.sum() == pytest.approx(0.3, abs=0.04)
    assert set(found["tokens"][changed]) <= set(pool)
    assert (views.replace_tokens(batch, pool, 0, 1, 0.3, ())["tokens"] != found["tokens"]).any()
    again = views.replace_tokens(batch, pool, 0, 0, 0.3, (1, 2, 0))
    np.testing.assert_array_equal(again["tokens"], found["tokens"])
    assert views.replace_tokens(batch, pool, 0, 0, 0.0, ()) is batch


def experiment(**sections):
    raw = {"data": {"source": "bbc-titles", "labels": ["business", "tech"]}, "model": {"kind": "bert"},
           "objective": {"name": "classify"}}  # fmt: skip
    return configs.check({**raw, **sections}, "c.toml")


def test_sections_of_strength_zero_and_absent_ones_change_nothing():
    zero = {"annotation": {"labels": 20}, "pseudo": {"run": "x", "strength": 0.0}, "consistency": {"strength": 0.0},
            "contrastive": {"strength": 0.0}}  # fmt: skip
    found = experiment(**zero)
    assert few.with_terms(found, classify, {}) == (classify, {})
    assert not few.learns_pseudo(found)
    assert not few.reads_unlabelled(found)
    assert not set(configs.plain(experiment())) & set(zero)


def test_a_teacher_counts_by_threshold_or_by_the_surest_share_of_each_class():
    answers = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.45, 0.55], [0.7, 0.3], [0.3, 0.7]])
    truth = ["business", "tech", "business", "tech", "business", "business"]
    assert annotation.surest(answers, 0.5).tolist() == [True, False, True, False, False, True]
    assert annotation.surest(answers, 1.0).all()
    assert annotation.surest(np.full((4, 2), 0.5), 0.25).tolist() == [True, False, False, False]  # equals: the first
    found = lambda **section: experiment(annotation={"labels": 20}, pseudo={"run": "x", **section})
    sure, labels, report = teacher.choose(found(share=0.5), answers, truth)
    assert sure.tolist() == [True, False, True, False, False, True]
    assert labels.tolist() == [0, 0, 1]
    assert report["accuracy_kept"] == pytest.approx(2 / 3)
    assert teacher.choose(found(threshold=0.7), answers, truth)[0].sum() == 4
    with pytest.raises(UserError, match="no text is pseudo-labelled"):
        teacher.choose(found(share=0.1), answers, truth)


def test_where_all_texts_have_labels_none_is_left_to_learn_from_without():
    found = experiment(annotation={"labels": 5}, consistency={})
    texts = [Document(str(number), f"text {number}", label) for number, label in enumerate(["business", "tech"] * 3)]
    report = bought.annotate(found, texts, validation=36).report
    assert (report["unlabelled"], report["validation_labels"], report["validation_price"]) == (1, 36, 2.0)
    taught = {"kept": 3, "asked": 9, "accuracy_kept": 1.0, "classes": {"neg": 0, "pos": 3}}
    told = bought.describe({"pseudo": taught})
    assert "neg 0, pos 3" in told[0]
    assert "no pseudo-label says neg" in told[1]
    assert any("36 validation labels, 2.00" in line for line in bought.describe({"annotation": report}))
    with pytest.raises(UserError, match="all 5 training texts have a label"):
        bought.annotate(found, texts[:5])


def test_sections_that_make_no_sense_are_refused_by_their_keys():
    labels = {"annotation": {"labels": 20}}
    for sections, words in (
        ({"annotation": {"labels": 1}}, "at least 2"), ({"annotation": {"noise": 1.0}}, "noise must be"),
        ({"annotation": {"lables": 5}}, "did you mean 'labels'"), ({"pseudo": {"run": "x"}}, "annotation.labels"),
        ({"consistency": {}}, "every training text has a label"),
        (labels | {"consistency": {"rows": 3}, "train": {"shards": 2}}, "3 rows cannot be split into 2"),
        (labels | {"pseudo": {"run": "x", "threshold": 1.5}}, "threshold must be in"),
        (labels | {"pseudo": {"run": "x", "share": 0.0}}, "share must be above 0"),
        (labels | {"pseudo": {"run": "x", "share": 0.5, "threshold": 0.5}}, "threshold says nothing beside share"),
        ({"consistency": {"method": "r_drop", "rows": 4}}, "rows says nothing to r_drop"),
        ({"contrastive": {"temperature": 0.0}}, "temperature above 0"),
        ({"contrastive": {}, "train": {"shards": 2}}, "which shards would part"),
        ({"objective": {"name": "simcse"}, "train": {"shards": 2}}, "which shards would part"),
        ({"contrastive": {}, "consistency": {"method": "r_drop"}}, "reads the batch twice"),
        ({"consistency": {"method": "r_drop"}, "model": {"kind": "bert", "dropout": 0.0}}, "differ by dropout alone"),
        ({"objective": {"name": "simcse"}, "model": {"kind": "bert", "dropout": 0.0}}, "differ by dropout alone"),
        ({"contrastive": {}, "model": {"kind": "gpt"}}, "reads both ways"),
        ({"annotation": {}, "objective": {"name": "masked"}}, "says nothing to the objective 'masked'"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            experiment(**sections)


def test_hosts_read_parts_of_a_batch_and_of_what_stands_beside_it():
    """The parts are those of the whole batch, cut where the hosts are, and nothing of it is read twice."""
    found = experiment(annotation={"labels": 20}, consistency={"rows": 12}, train={"batch_size": 8})
    frame, random = rows.Frame(1, 2, 0), np.random.default_rng(0)
    make = lambda count: rows.text_rows(
        [random.integers(4, 20, 5).tolist() for _ in range(count)], None, np.arange(count, dtype=np.int32), 8, frame
    )
    reading = supervised.labelled_reading(found, {"train": make(30), "unlabelled": make(50)})
    for step in (0, 3, 9):
        whole = reading.batch(step)
        assert len(whole["tokens"]) == 8
        assert len(whole["unlabelled/tokens"]) == len(whole["noised/tokens"]) == 12
        parts = [reading.rows(step, slice(first, first + 2)) for first in range(0, 8, 2)]
        assert [len(part["noised/tokens"]) for part in parts] == [3] * 4
        for name, leaf in whole.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), leaf)
    cut = few.cut_rows({"tokens": np.arange(8), "pseudo/tokens": np.arange(4)}, slice(4, 8), 8)
    assert [leaf.tolist() for leaf in cut.values()] == [[4, 5, 6, 7], [2, 3]]


def test_the_table_of_a_lab_has_prices_baselines_by_seed_and_differences():
    summary = lambda f1: {"annotation": {"labels": 100, "hours": 0.5, "price": 10.0, "wrong": 0},
                          "baselines": {"TF-IDF": {"macro_f1": f1, "weight": 1}}}  # fmt: skip
    found = labels_bought.bought([summary(0.4), summary(0.6)])
    assert found["price"] == 10.0
    assert found["own_baselines"]["TF-IDF"]["macro_f1"]["mean"] == pytest.approx(0.5)
    assert labels_bought.bought([{"baselines": {}}]) == {}
    finding = lambda precision: {"annotation": {"labels": 9, "hours": 1.0, "price": 1.0, "wrong": 3, "validation_labels": 7,
                                                "finding": {"precision": precision, "recall": 0.5}}, "baselines": {}}  # fmt: skip
    noisy = labels_bought.bought([finding(0.2), finding(0.4)])
    assert (noisy["wrong"], noisy["validation_labels"], noisy["finding"]["recall"]["mean"]) == (3, 7, 0.5)
    assert noisy["finding"]["precision"]["mean"] == pytest.approx(0.3)
    row = lambda name, values: {"member": name, "seeds": [0, 1, 2], "labels": 100, "macro_f1": {"values": values}}
    (one,) = labels_bought.from_first([row("a", [0.1, 0.2, 0.3]), row("b", [0.2, 0.35, 0.4])])
    assert (one["left"], one["right"]) == ("a", "b")
    assert one["value"] == pytest.approx(0.35 / 3)
    assert one["low"] < one["value"] < one["high"]


def test_a_seed_has_labels_of_its_own_unless_the_section_says_which():
    found = experiment(annotation={"labels": 20})
    other = dataclasses.replace(found, train=dataclasses.replace(found.train, seed=1))
    texts = [document._replace(label=("business", "tech")[n % 2]) for n, document in enumerate(documents((60,)))]
    from minillm.experiment.recipes.annotation import annotate

    names = [[document.name for document in annotate(each, texts).labelled] for each in (found, other)]
    assert names[0] != names[1]
    assert len(names[0]) == len(names[1]) == 20
    fixed = [
        dataclasses.replace(each, annotation=configs.AnnotationConfig(labels=20, seed=7)) for each in (found, other)
    ]
    assert annotate(fixed[0], texts) == annotate(fixed[1], texts)


def test_figures_draw_the_price_of_a_curve_and_each_member_s_own_baseline(tmp_path, monkeypatch):
    from minillm.report import few as report

    kept = []
    monkeypatch.setattr(report, "save_figure", lambda figure, path: kept.append(figure))
    spread = lambda mean: {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "values": [mean - 0.05, mean + 0.05]}
    row = lambda name, count: {"member": name, "labels": count, "price": count / 18, "validation_labels": 36,
                               "macro_f1": spread(0.8), "own_baselines": {"TF-IDF": {"macro_f1": spread(0.5)}}}  # fmt: skip
    report.write_labels({"rows": [row("a", 10), row("b", 100)]}, tmp_path / "curve.png")
    report.write_labels({"rows": [row("a", 10), row("b", 10)]}, tmp_path / "ways.png")
    curve, ways = (figure.axes[0] for figure in kept)
    assert curve.get_xscale() == "log"
    assert "without the 36 of the validation part" in curve.child_axes[0].get_xlabel()
    dashed = [line.get_xdata().tolist() for line in ways.lines if line.get_linestyle() == "--"]
    assert dashed == [[-0.4, 0.4], [0.6, 1.4]]
