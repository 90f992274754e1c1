"""BERT and its heads against transformers: values and gradients in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import params
from minillm.models import bert
from minillm.models.contract import bind

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]  # third parties warn about themselves

SIZES = [(11, 12, 1, 8, 2), (23, 16, 2, 12, 3), (17, 20, 3, 16, 4)]
ROWS = 3

# path -> torch name; "@" stands for the layer; kernels are transposed
BLOCK = {
    "attention/query": "attention.self.query", "attention/key": "attention.self.key",
    "attention/value": "attention.self.value", "attention/output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm", "feedforward/up": "intermediate.dense",
    "feedforward/down": "output.dense", "feedforward_norm": "output.LayerNorm",
}  # fmt: skip
BODY = {"embedding": "embeddings.word_embeddings", "position": "embeddings.position_embeddings",
        "token_type": "embeddings.token_type_embeddings", "embedding_norm": "embeddings.LayerNorm",
        "pooler": "pooler.dense"}  # fmt: skip
HEADS = {"masked/transform": "cls.predictions.transform.dense", "masked/norm": "cls.predictions.transform.LayerNorm",
         "masked": "cls.predictions", "next_sentence": "cls.seq_relationship", "classify": "classifier",
         "tag": "classifier", "span": "qa_outputs"}  # fmt: skip
LEAVES = {"kernel": "weight", "table": "weight", "scale": "weight", "bias": "bias"}

# our tasks, transformers' class, the fields of its answer, and our function for each
CASES = {
    "bare": (("pool",), "BertModel", {"last_hidden_state": None, "pooler_output": "pool"}),
    "masked": (("masked",), "BertForMaskedLM", {"logits": "logits"}),
    "pretraining": (("masked", "next_sentence"), "BertForPreTraining",
                    {"prediction_logits": "logits", "seq_relationship_logits": "next_sentence"}),
    "classification": (("classify",), "BertForSequenceClassification", {"logits": "classify"}),
    "tagging": (("tag",), "BertForTokenClassification", {"logits": "tag"}),
    "answering": (("span",), "BertForQuestionAnswering", {"start_logits": ("span", 0), "end_logits": ("span", 1)}),
}  # fmt: skip


def torch_name(path: str, bare: bool) -> str:
    """blocks/attention/query/kernel -> bert.encoder.layer.@.attention.self.query.weight"""
    module, leaf = path.rsplit("/", 1)
    if module in HEADS:
        return f"{HEADS[module]}.{LEAVES[leaf]}"
    name = f"encoder.layer.@.{BLOCK[module[7:]]}" if module.startswith("blocks/") else BODY[module]
    return f"{'' if bare else 'bert.'}{name}.{LEAVES[leaf]}"


def torch_tensors(flat: dict, bare: bool) -> dict[str, np.ndarray]:
    """Our flat parameters (or gradients) under their torch names, layer by layer."""
    tensors = {}
    for path, value in flat.items():
        name, value = torch_name(path, bare), np.asarray(value)
        turn = (lambda x: x.T) if path.endswith("kernel") else (lambda x: x)
        layers = enumerate(value) if path.startswith("blocks/") else [("", value)]
        tensors |= {name.replace("@", str(layer)): turn(part) for layer, part in layers}
    return tensors


def random_params(config, seed):
    born = params.init_params(bert.param_specs(config), jax.random.key(seed))
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + 0.3 * generator.normal(size=leaf.shape).astype(np.float32), born)


def random_batch(vocabulary, length):
    generator = np.random.default_rng(1)
    lengths = np.array([length, length // 2, length - 1])
    return {
        "tokens": generator.integers(vocabulary, size=(ROWS, length)).astype(np.int32),
        "mask": np.arange(length) < lengths[:, None],
        "token_types": generator.integers(2, size=(ROWS, length)).astype(np.int32),
    }


def make_theirs(name, size, ours, labels):
    import torch
    import transformers

    vocabulary, length, layers, width, heads = size
    settings = transformers.BertConfig(
        vocab_size=vocabulary, max_position_embeddings=length, num_hidden_layers=layers, hidden_size=width,
        num_attention_heads=heads, intermediate_size=4 * width, hidden_act="gelu", layer_norm_eps=bert.EPSILON,
        num_labels=labels, pad_token_id=None, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, attn_implementation="eager")  # fmt: skip
    theirs = getattr(transformers, name)(settings).eval()
    tensors = torch_tensors(params.flatten(ours), name == "BertModel")
    named = dict(theirs.named_parameters())
    assert set(named) == set(tensors), set(named) ^ set(tensors)
    with torch.no_grad():
        for path, value in tensors.items():
            assert named[path].shape == value.shape, path
            named[path].copy_(torch.tensor(np.array(value)))
    return theirs, named


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bert_equals_transformers(case, size):
    import torch

    tasks, name, fields = case
    vocabulary, length, layers, width, heads = size
    config = bert.Config(vocabulary=vocabulary, context=length, layers=layers, width=width, heads=heads, tasks=tasks,
                         labels=2 if "span" in tasks else 5)  # fmt: skip
    ours, batch, model = random_params(config, 0), random_batch(vocabulary, length), bind(bert, config)
    theirs, named = make_theirs(name, size, ours, config.labels)
    expected = theirs(input_ids=torch.tensor(batch["tokens"]).long(), attention_mask=torch.tensor(batch["mask"]).long(),
                      token_type_ids=torch.tensor(batch["token_types"]).long())  # fmt: skip
    generator = np.random.default_rng(2)
    weighting = {f: generator.normal(size=expected[f].shape).astype(np.float32) for f in fields}

    def answer(weights, hidden, head):
        if head is None or head == "logits":
            return hidden if head is None else model.logits(weights, hidden)
        if isinstance(head, tuple):
            return model.heads[head[0]](weights, hidden)[..., head[1]]
        return model.heads[head](weights, hidden)

    def score(weights):
        hidden = model.apply(weights, jax.tree.map(jnp.asarray, batch)).hidden
        found = {field: answer(weights, hidden, head) for field, head in fields.items()}
        return sum((found[field] * weighting[field]).mean() for field in fields), found

    gradients, found = jax.jit(jax.grad(score, has_aux=True))(ours)
    for field in fields:
        np.testing.assert_allclose(found[field], expected[field].detach().numpy(), atol=1e-5, rtol=1e-5, err_msg=field)
    sum((expected[field] * torch.tensor(weighting[field])).mean() for field in fields).backward()
    for path, value in torch_tensors(params.flatten(gradients), name == "BertModel").items():
        np.testing.assert_allclose(value, named[path].grad.numpy(), atol=1e-5, rtol=1e-4, err_msg=path)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_each_sublayer_equals_transformers(size):
    """Embedding, then block by block: hidden states, and attention weights at positions that are no padding."""
    import torch

    vocabulary, length, layers, width, heads = size
    config = bert.Config(
        vocabulary=vocabulary, context=length, layers=layers, width=width, heads=heads, tasks=("pool",)
    )
    ours, batch = random_params(config, 3), random_batch(vocabulary, length)
    theirs, _ = make_theirs("BertModel", size, ours, 2)
    expected = theirs(input_ids=torch.tensor(batch["tokens"]).long(), attention_mask=torch.tensor(batch["mask"]).long(),
                      token_type_ids=torch.tensor(batch["token_types"]).long(),
                      output_attentions=True, output_hidden_states=True)  # fmt: skip
    found = bert.apply(ours, jax.tree.map(jnp.asarray, batch), config, capture=("attention", "hidden")).captured
    embedded = bert.norm.layer_norm(
        ours["embedding_norm"], bert.embed(ours, jax.tree.map(jnp.asarray, batch), config), bert.EPSILON
    )
    np.testing.assert_allclose(embedded, expected.hidden_states[0].detach().numpy(), atol=1e-5, rtol=1e-5)
    for layer in range(layers):
        hidden, weights = expected.hidden_states[layer + 1], expected.attentions[layer]
        np.testing.assert_allclose(found["hidden"][layer], hidden.detach().numpy(), atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(found["attention"][layer], weights.detach().numpy(), atol=1e-5, rtol=1e-5)
    assert jnp.all(found["attention"][:, 1, :, :, length // 2 :] == 0.0)


def test_packed_positions_reach_the_table():
    """`positions` in the batch are transformers' position_ids."""
    import torch

    size = SIZES[1]
    vocabulary, length, layers, width, heads = size
    config = bert.Config(
        vocabulary=vocabulary, context=length, layers=layers, width=width, heads=heads, tasks=("pool",)
    )
    ours, batch = random_params(config, 4), random_batch(vocabulary, length)
    batch |= {"positions": np.random.default_rng(5).integers(length, size=(ROWS, length)).astype(np.int32)}
    theirs, _ = make_theirs("BertModel", size, ours, 2)
    ids = {
        "input_ids": "tokens",
        "attention_mask": "mask",
        "token_type_ids": "token_types",
        "position_ids": "positions",
    }
    expected = theirs(**{name: torch.tensor(batch[key]).long() for name, key in ids.items()}).last_hidden_state
    np.testing.assert_allclose(
        bert.apply(ours, jax.tree.map(jnp.asarray, batch), config).hidden,
        expected.detach().numpy(),
        atol=1e-5,
        rtol=1e-5,
    )


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_bert_with_rotary_positions_equals_roformer(size):
    """Theirs turns neighbouring pairs and ours halves: the rows of the query and key kernels are put in that order."""
    import torch
    import transformers

    vocabulary, length, layers, width, heads = size
    config = bert.Config(vocabulary=vocabulary, context=length, layers=layers, width=width, heads=heads, tasks=(),
                         position="rotary")  # fmt: skip
    ours, batch = random_params(config, 4), random_batch(vocabulary, length)
    theirs = transformers.RoFormerModel(transformers.RoFormerConfig(
        vocab_size=vocabulary, pad_token_id=None, embedding_size=width, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * width, hidden_act="gelu", max_position_embeddings=length, layer_norm_eps=bert.EPSILON,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, rotary_value=False)).eval()  # fmt: skip
    half = width // heads // 2
    places = np.arange(width).reshape(heads, 2, half).swapaxes(1, 2).reshape(-1)  # halves -> neighbours, in every head
    turned = ("self.query.", "self.key.")
    tensors = {name: value[places] if any(part in name for part in turned) else value
               for name, value in torch_tensors(params.flatten(ours), bare=True).items()}  # fmt: skip
    with torch.no_grad():
        named = dict(theirs.named_parameters())
        del named["encoder.embed_positions.weight"]  # sines and cosines, not trained
        assert set(named) == set(tensors), set(named) ^ set(tensors)
        for name, value in tensors.items():
            named[name].copy_(torch.tensor(np.array(value)))
    expected = theirs(input_ids=torch.tensor(batch["tokens"]).long(), attention_mask=torch.tensor(batch["mask"]).long(),
                      token_type_ids=torch.tensor(batch["token_types"]).long()).last_hidden_state  # fmt: skip
    weighting = np.random.default_rng(5).normal(size=expected.shape).astype(np.float32)

    def score(weights):
        hidden = bert.apply(weights, jax.tree.map(jnp.asarray, batch), config).hidden
        return (hidden * weighting).mean(), hidden

    gradients, found = jax.jit(jax.grad(score, has_aux=True))(ours)
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-5, rtol=1e-5)
    (expected * torch.tensor(weighting)).mean().backward()
    for name, value in torch_tensors(params.flatten(gradients), bare=True).items():
        value = value[places] if any(part in name for part in turned) else value
        np.testing.assert_allclose(value, named[name].grad.numpy(), atol=1e-5, rtol=1e-4, err_msg=name)
