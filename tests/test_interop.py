"""Hugging Face checkpoints: names, exact round trips, and thirty damaged ones, each refused by name.

`test_parity_interop.py` holds the same tables against transformers itself.
"""

import json
import struct

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minillm import params
from minillm.errors import UserError
from minillm.interop import huggingface
from minillm.interop.huggingface import names, settings
from minillm.models import MODELS, bert, gpt, t5, vit

SIZES = {"vocabulary": 11, "context": 8, "layers": 2, "width": 8, "heads": 2, "hidden": 12}
IMAGE = {"image": (4, 6), "channels": 3, "patch": 2, "layers": 2, "width": 8, "heads": 2, "hidden": 12}
LLAMA = {"norm": "rms", "position": "rotary", "activation": "silu", "gated": True, "bias": False, "tied": False}
EVERY_TASK = ("pool", "masked", "next_sentence", "classify", "span")
CASES = {
    "bert": ("bert", bert.Config(**SIZES, tasks=("pool",))),
    "bert without a pooler": ("bert", bert.Config(**SIZES, tasks=())),
    "bert masked": ("bert", bert.Config(**SIZES, tasks=("masked",))),
    "bert masked and pooler": ("bert", bert.Config(**SIZES, tasks=("pool", "masked"))),
    "bert pretraining": ("bert", bert.Config(**SIZES)),
    "bert classify": ("bert", bert.Config(**SIZES, tasks=("classify",), labels=5)),
    "bert tag": ("bert", bert.Config(**SIZES, tasks=("tag",), labels=3)),
    "bert span": ("bert", bert.Config(**SIZES, tasks=("span",))),
    "gpt2": ("gpt", gpt.Config(**SIZES, dropout=0.1)),
    "gpt2 untied": ("gpt", gpt.Config(**SIZES, tied=False, activation="relu")),
    "llama": ("gpt", gpt.Config(**SIZES, **LLAMA)),
    "llama tied, with biases": ("gpt", gpt.Config(**SIZES, **(LLAMA | {"tied": True, "bias": True}))),
    "t5": ("t5", t5.Config(**SIZES, decoder_layers=3, head=3)),
    "t5 1.1": ("t5", t5.Config(**SIZES, activation="gelu", gated=True, tied=False)),
    "vit": ("vit", vit.Config(**IMAGE, tasks=("pool",))),
    "vit classify": ("vit", vit.Config(**IMAGE, tasks=("classify",), labels=3)),
    "vit patches": ("vit", vit.Config(**IMAGE | {"image": (4, 4)}, tasks=("patches",))),
}

# the names of a published file with one layer, written down by hand
BLOCK = "attention.self.query attention.self.key attention.self.value attention.output.dense attention.output.LayerNorm " \
        "intermediate.dense output.dense output.LayerNorm"  # fmt: skip
STACK = (
    "layer.0.SelfAttention.q layer.0.SelfAttention.k layer.0.SelfAttention.v layer.0.SelfAttention.o layer.0.layer_norm"
)
PUBLISHED = {
    "bert": (*(f"embeddings.{name}.weight" for name in ("word_embeddings", "position_embeddings", "token_type_embeddings")),
             "embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias", "pooler.dense.weight", "pooler.dense.bias",
             *(f"encoder.layer.0.{name}.{leaf}" for name in BLOCK.split() for leaf in ("weight", "bias"))),
    "gpt2": ("transformer.wte.weight", "transformer.wpe.weight", "transformer.ln_f.weight", "transformer.ln_f.bias",
             *(f"transformer.h.0.{name}.{leaf}" for leaf in ("weight", "bias")
               for name in ("ln_1", "ln_2", "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"))),
    "llama": ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight",
              *(f"model.layers.0.{name}.weight" for name in (
                  "input_layernorm", "post_attention_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                  "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"))),
    "t5 1.1": ("shared.weight", "lm_head.weight", "encoder.final_layer_norm.weight", "decoder.final_layer_norm.weight",
               *(f"{stack}.block.0.{name}.weight" for stack in ("encoder", "decoder")
                 for name in (*STACK.split(), "layer.0.SelfAttention.relative_attention_bias")),
               *(f"encoder.block.0.layer.1.{name}.weight" for name in (
                   "DenseReluDense.wi_0", "DenseReluDense.wi_1", "DenseReluDense.wo", "layer_norm")),
               *(f"decoder.block.0.layer.1.{name}.weight" for name in (
                   "EncDecAttention.q", "EncDecAttention.k", "EncDecAttention.v", "EncDecAttention.o", "layer_norm")),
               *(f"decoder.block.0.layer.2.{name}.weight" for name in (
                   "DenseReluDense.wi_0", "DenseReluDense.wi_1", "DenseReluDense.wo", "layer_norm"))),
}  # fmt: skip


def random_params(kind, config, seed=0):
    generator = np.random.default_rng(seed)
    flat = {
        path: generator.normal(size=spec.shape).astype(np.float32)
        for path, spec in MODELS[kind].param_specs(config).items()
    }
    return params.unflatten(flat)


def written(folder, case, **options):
    kind, config = CASES[case]
    folder.mkdir(exist_ok=True)
    ours = random_params(kind, config)
    huggingface.write(folder, kind, config, ours, **options)
    return ours


@pytest.mark.parametrize("case", CASES)
def test_tables_cover_every_parameter_once(case):
    kind, config = CASES[case]
    specs = MODELS[kind].param_specs(config)
    page, _ = huggingface.settle(kind, config)
    table = page.table(config)
    assert sorted(path for row in table.rows for path in row.paths) == sorted(specs)
    size = lambda place: int(np.prod(place.shape))
    assert sum(map(size, names.places(table, specs).values())) == params.count(specs)
    with pytest.raises(ValueError, match="differ"):
        names.places(table._replace(rows=table.rows[1:]), specs)


@pytest.mark.parametrize("case", PUBLISHED)
def test_names_are_the_published_ones(case, tmp_path):
    kind, config = CASES[case]
    config = type(config)(**{**vars(config), "layers": 1} | ({"decoder_layers": 1} if kind == "t5" else {}))
    huggingface.write(tmp_path, kind, config, random_params(kind, config))
    assert sorted(load_file(tmp_path / "model.safetensors")) == sorted(PUBLISHED[case])


@pytest.mark.parametrize("case", CASES)
def test_round_trip_is_exact(case, tmp_path):
    """ours -> theirs -> ours -> theirs: the same config, the same bits, the same file."""
    kind, config = CASES[case]
    ours = written(tmp_path / "a", case)
    found = huggingface.read(tmp_path / "a")
    assert (found.kind, found.dtypes) == (kind, {"float32": len(load_file(tmp_path / "a/model.safetensors"))})
    same = dict(vars(config)) | (
        {"decoder_layers": config.decoder_depth, "head": config.head_size} if kind == "t5" else {}
    )
    assert vars(found.config) | {"labels": None} == same | {"labels": None}
    assert jax.tree.all(jax.tree.map(np.array_equal, found.params, ours))
    (tmp_path / "b").mkdir()
    huggingface.write(tmp_path / "b", found.kind, found.config, found.params)
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert len({path.stat().st_mode for path in (tmp_path / "b").iterdir()}) == 1  # whoever reads one reads all


def test_transforms_put_each_number_where_it_belongs(tmp_path):
    """By hand: a kernel is turned, GPT-2's fused projection is parted, layers are stacked."""
    ours = params.flatten(written(tmp_path, "gpt2"))
    theirs = load_file(tmp_path / "model.safetensors")
    fused = theirs["transformer.h.1.attn.c_attn.weight"]
    assert fused.shape == (8, 24)
    for start, name in ((0, "query"), (8, "key"), (16, "value")):
        np.testing.assert_array_equal(fused[:, start : start + 8], ours[f"blocks/attention/{name}/kernel"][1])
    ours = params.flatten(written(tmp_path, "vit"))["patch/kernel"].reshape(2, 2, 3, 8)
    theirs = load_file(tmp_path / "model.safetensors")["embeddings.patch_embeddings.projection.weight"]
    assert theirs[5, 2, 0, 1] == ours[0, 1, 2, 5]
    ours = params.flatten(written(tmp_path, "llama"))
    theirs = load_file(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(
        theirs["model.layers.1.mlp.up_proj.weight"].T, ours["blocks/feedforward/up/kernel"][1]
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_types_are_read_exactly_and_counted(dtype, tmp_path):
    written(tmp_path / "a", "llama", dtype=dtype)
    found = huggingface.read(tmp_path / "a")
    assert set(found.dtypes) == {dtype}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(found.params)} == {"float32"}
    (tmp_path / "b").mkdir()
    huggingface.write(tmp_path / "b", found.kind, found.config, found.params, dtype=dtype)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    large = jax.tree.map(lambda leaf: np.full_like(leaf, 3.4e38), found.params)  # float32 holds it
    with pytest.raises(UserError, match="do not fit"):
        huggingface.write(tmp_path / "b", found.kind, found.config, large, dtype=dtype)


def edit(folder, change):
    """Applies `change` to the dict of tensors of a file."""
    tensors = load_file(folder / "model.safetensors")
    found = change(tensors)
    save_file(
        {k: np.ascontiguousarray(v) for k, v in (tensors if found is None else found).items()},
        folder / "model.safetensors",
    )


def rename(tensors, old, new):
    tensors[new] = tensors.pop(old)


@pytest.mark.parametrize("start", [b"PK", b"\x80\x04"])
def test_a_length_that_looks_like_a_pickle_is_none(start, tmp_path):
    """The file begins with its header's length: these two bytes may be anything."""
    ours = written(tmp_path, "bert masked")
    length = int.from_bytes(start, "little") + 2**16
    raw(
        tmp_path,
        lambda data: (
            struct.pack("<Q", length)
            + data[8 : (end := 8 + struct.unpack("<Q", data[:8])[0])].ljust(length)
            + data[end:]
        ),
    )
    assert (tmp_path / "model.safetensors").read_bytes()[:2] == start
    assert jax.tree.all(jax.tree.map(np.array_equal, huggingface.read(tmp_path).params, ours))


def drop(tensors, name):
    del tensors[name]


def test_files_that_differ_only_in_their_dress(tmp_path):
    """Without the prefix or with it, with buffers, tied copies and names of 2019: the same parameters."""
    ours = written(tmp_path, "bert masked")
    same = lambda: jax.tree.all(jax.tree.map(np.array_equal, huggingface.read(tmp_path).params, ours))
    word = "bert.embeddings.word_embeddings.weight"
    edit(tmp_path, lambda t: t.update({
        "bert.embeddings.position_ids": np.arange(8)[None], "cls.predictions.decoder.weight": t[word],
        "cls.predictions.decoder.bias": t["cls.predictions.bias"]}))  # fmt: skip
    assert same()
    old = lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    edit(tmp_path, lambda t: {old(name): tensor for name, tensor in t.items()})
    assert same()
    edit(tmp_path, lambda t: {name.removeprefix("bert."): tensor for name, tensor in t.items()})
    assert same()
    ours = written(tmp_path, "gpt2")
    edit(tmp_path, lambda t: {name.removeprefix("transformer."): tensor for name, tensor in t.items()})
    edit(tmp_path, lambda t: t.update({"h.0.attn.bias": np.ones((1, 1, 8, 8), np.float32), "h.1.attn.masked_bias": np.float32([-1e4]),
                                       "lm_head.weight": t["wte.weight"]}))  # fmt: skip
    assert same()
    ours = written(tmp_path, "bert")
    edit(tmp_path, lambda t: {f"bert.{name}": tensor for name, tensor in t.items()})
    assert same()


def shard(folder, change=lambda index: None):
    """Parts a model's file into two with an index, to which `change` is applied."""
    tensors = load_file(folder / "model.safetensors")
    parts = {"model-1.safetensors": sorted(tensors)[::2], "model-2.safetensors": sorted(tensors)[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    change(index["weight_map"])
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_weights_in_several_files(tmp_path):
    ours = written(tmp_path, "llama")
    shard(tmp_path)
    assert jax.tree.all(jax.tree.map(np.array_equal, huggingface.read(tmp_path).params, ours))


def raw(folder, change):
    path = folder / "model.safetensors"
    path.write_bytes(change(path.read_bytes()))


def twice(data):
    """The same name a second time in the header: the library alone would take the last."""
    size = struct.unpack("<Q", data[:8])[0]
    header = data[8 : 8 + size].decode().rstrip()
    entry = json.dumps(next({k: v} for k, v in json.loads(header).items() if k == "bert.embeddings.LayerNorm.bias"))
    header = (header[:-1] + "," + entry[1:]).encode()
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


WORD, QUERY, UP = ("bert.embeddings.word_embeddings.weight", "bert.encoder.layer.1.attention.self.query.weight",
                   "bert.encoder.layer.0.intermediate.dense.weight")  # fmt: skip
SHARD = lambda folder, change: shard(folder, change)
DAMAGE = {
    "missing": (lambda f: edit(f, lambda t: drop(t, QUERY)), f"no tensor fills '{QUERY}'"),
    "missing layer": (lambda f: edit(f, lambda t: {k: v for k, v in t.items() if "layer.1." not in k}), "encoder.layer.1.attention.output.dense.bias' and 13 more"),
    "missing head": (lambda f: edit(f, lambda t: {k: v for k, v in t.items() if "cls." not in k}), "cls.predictions.bias"),
    "half a head": (lambda f: edit(f, lambda t: drop(t, "cls.predictions.transform.dense.bias")), "cls.predictions.transform.dense.bias"),
    "extra": (lambda f: edit(f, lambda t: t.update(adapter=t[WORD])), "no parameter takes the tensor 'adapter'"),
    "extra layer": (lambda f: edit(f, lambda t: t.update({QUERY.replace(".1.", ".2."): t[QUERY]})), "layer.2.attention.self.query.weight"),
    "renamed": (lambda f: edit(f, lambda t: rename(t, QUERY, QUERY.replace("query", "qurey"))), "qurey.weight' another name of"),
    "half prefixed": (lambda f: edit(f, lambda t: t.update({QUERY[5:]: t[QUERY]})), "are the same parameter"),
    "old and new name": (lambda f: edit(f, lambda t: t.update({"bert.embeddings.LayerNorm.gamma": t["bert.embeddings.LayerNorm.weight"]})), "LayerNorm.gamma' and"),
    "twice in the header": (lambda f: raw(f, twice), "'bert.embeddings.LayerNorm.bias' stands twice"),
    "transposed": (lambda f: edit(f, lambda t: t.update({UP: t[UP].T})), f"{UP}: has the shape [8, 12], [12, 8] was expected (transposed?)"),
    "narrow": (lambda f: edit(f, lambda t: t.update({UP: t[UP][:-1]})), f"{UP}: has the shape [11, 8]"),
    "flat": (lambda f: edit(f, lambda t: t.update({UP: t[UP].reshape(-1)})), f"{UP}: has the shape [96]"),
    "vocabulary": (lambda f: edit(f, lambda t: t.update({WORD: t[WORD][:-1]})), f"{WORD}: has the shape [10, 8]"),
    "integers": (lambda f: edit(f, lambda t: t.update({UP: t[UP].astype(np.int32)})), f"{UP}: has the type I32"),
    "float64": (lambda f: edit(f, lambda t: t.update({UP: t[UP].astype(np.float64)})), f"{UP}: has the type F64"),
    "quantised": (lambda f: edit(f, lambda t: t.update({UP: t[UP].astype(np.int8)})), f"{UP}: has the type I8"),
    "NaN": (lambda f: edit(f, lambda t: t.update({UP: t[UP] * np.float32(np.nan)})), f"{UP}: holds values that are no numbers"),
    "infinity": (lambda f: edit(f, lambda t: t.update({UP: t[UP] + np.float32(np.inf)})), f"{UP}: holds values"),
    "untied copy": (lambda f: edit(f, lambda t: t.update({"cls.predictions.decoder.weight": t[WORD] + 1})), "should repeat"),
    "cut": (lambda f: raw(f, lambda data: data[:-5]), "model.safetensors: damaged or cut short"),
    "cut in the header": (lambda f: raw(f, lambda data: data[:100]), "model.safetensors: damaged or cut short"),
    "empty": (lambda f: raw(f, lambda data: b""), "model.safetensors: damaged or cut short"),
    "longer": (lambda f: raw(f, lambda data: data + b"0"), "model.safetensors: damaged or cut short"),
    "text": (lambda f: raw(f, lambda data: b"<html>Not found</html>"), "model.safetensors: damaged or cut short"),
    "LFS pointer": (lambda f: raw(f, lambda data: b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
    "pickle in disguise": (lambda f: raw(f, lambda data: b"PK\3\4" + data), "a pickle under another name"),
    "old pickle in disguise": (lambda f: raw(f, lambda data: b"\x80\x02" + data), "a pickle under another name"),
    "pickle": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pytorch_model.bin: the weights are pickled"),
    "tensorflow": (lambda f: (f / "model.safetensors").rename(f / "tf_model.h5"), "tf_model.h5: the weights are not safetensors"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "there is no model.safetensors"),
    "shard gone": (lambda f: (shard(f), (f / "model-2.safetensors").unlink()), "model-2.safetensors: this file is missing"),
    "shard cut": (lambda f: (shard(f), (f / "model-1.safetensors").write_bytes(b"ab")), "model-1.safetensors: damaged"),
    "index lies": (lambda f: shard(f, lambda i: i.update({"ghost": "model-1.safetensors"})), "'ghost' is not in it"),
    "index swaps": (lambda f: shard(f, lambda i: i.update({WORD: "model-1.safetensors" if i[WORD] != "model-1.safetensors" else "model-2.safetensors"})), f"{WORD!r} is not where"),
    "index leads away": (lambda f: shard(f, lambda i: i.update({WORD: "../x.safetensors"})), "is not the name of a safetensors file"),
    "index and file": (lambda f: (f / "model.safetensors.index.json").write_text("{}"), "there are both"),
    "index is no index": (lambda f: (shard(f), (f / "model.safetensors.index.json").write_text("[]")), "not an index"),
    "no config": (lambda f: (f / "config.json").unlink(), "there is no config.json"),
    "config cut": (lambda f: (f / "config.json").write_text('{"model_type'), "config.json: cannot be read as JSON"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "an object was expected"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoints_are_refused_by_name(damage, tmp_path):
    written(tmp_path, "bert masked")
    change, words = DAMAGE[damage]
    change(tmp_path)
    with pytest.raises(UserError) as refused:
        huggingface.read(tmp_path)
    assert words in str(refused.value)
    assert refused.value.mend


SETTINGS = {
    "bert masked": [{"hidden_act": "gelu_new"}, {"position_embedding_type": "relative_key"}, {"is_decoder": True},
                    {"layer_norm_eps": 1e-5}, {"hidden_dropout_prob": 0.2}, {"architectures": ["BertForMultipleChoice"]},
                    {"num_attention_heads": 3}, {"vocab_size": "11"}, {"vocab_size": True}, {"vocab_size": None}, {"hidden_size": None},
                    {"model_type": "roberta"}, {"model_type": None}, {"model_type": ["bert"]}, {"num_hidden_layers": 2**70}, {"vocab_size": 2**40}, {"surprise": 1}, {"tie_word_embeddings": False},
                    {"num_hidden_layers": 0}],
    "gpt2": [{"activation_function": "mish"}, {"scale_attn_by_inverse_layer_idx": True}, {"scale_attn_weights": False},
             {"reorder_and_upcast_attn": True}, {"n_ctx": 9}, {"attn_pdrop": 0.3}],
    "llama": [{"num_key_value_heads": 1}, {"rope_theta": 5e5}, {"rope_scaling": {"type": "linear", "factor": 2.0}},
              {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
              {"head_dim": 8}, {"mlp_bias": True}, {"quantization_config": {"bits": 4}}, {"sliding_window": 4}],
    "t5": [{"feed_forward_proj": "gated-mish"}, {"feed_forward_proj": "tanh"}, {"is_encoder_decoder": False},
           {"dense_act_fn": "gelu_new"}, {"relative_attention_num_buckets": 6}],
    "vit patches": [{"patch_size": [2, 4]}, {"image_size": "4"}, {"image_size": [4]}, {"encoder_stride": 4}, {"qkv_bias": False},
                    {"hidden_act": "relu"}, {"layer_norm_eps": 1e-6}, {"pooler_act": "relu"}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("case", "change"), [(case, change) for case, changes in SETTINGS.items() for change in changes], ids=str
)
def test_settings_that_we_do_not_compute_are_refused_by_name(case, change, tmp_path):
    written(tmp_path, case)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError) as refused:
        huggingface.read(tmp_path)
    assert str(path) in str(refused.value)
    word = {
        "vocab_size": "",
        "num_attention_heads": "heads",
        "num_hidden_layers": "",
        "relative_attention_num_buckets": "buckets",
    }
    key = next(iter(change))
    assert word.get(key, key) in str(refused.value)


@pytest.mark.parametrize(("kind", "config", "words"), [
    ("gpt", gpt.Config(**SIZES, placement="post"), "model.placement"),
    ("gpt", gpt.Config(**SIZES, tasks=("classify",)), "a GPT with the head classify, whose scores have a bias"),
    ("gpt", gpt.Config(**SIZES, **LLAMA, tasks=("classify",)), "a GPT with the head classify"),
    ("gpt", gpt.Config(**SIZES, position="rotary"), "model.position"),
    ("gpt", gpt.Config(**SIZES, norm="rms"), "model.position"),
    ("gpt", gpt.Config(**SIZES, **(LLAMA | {"gated": False})), "model.gated"),
    ("bert", bert.Config(**SIZES, tasks=("masked", "classify")), "classify, masked"),
    ("bert", bert.Config(**SIZES, relations=3), "3 relations"),
    ("bert", bert.Config(**SIZES, position="rotary"), "rotary positions"),
    ("bert", bert.Config(**SIZES, tasks=("classify",), marks=2), "reads marked tokens"),
    ("t5", t5.Config(**SIZES, gated=True, activation="gelu_exact"), "gelu_exact"),
    ("lstm", None, "no counterpart"),
])  # fmt: skip
def test_models_that_transformers_has_not_are_refused(kind, config, words, tmp_path):
    ours = {} if config is None else random_params(kind, config)
    with pytest.raises(UserError, match=words):
        huggingface.write(tmp_path, kind, config, ours)
    assert not list(tmp_path.iterdir())


def test_a_missing_parameter_is_refused_on_export(tmp_path):
    kind, config = CASES["llama"]
    ours = random_params(kind, config)
    del ours["blocks"]["attention"]["query"]["kernel"]
    with pytest.raises(UserError, match="blocks/attention/query/kernel"):
        huggingface.write(tmp_path, kind, config, ours)


def test_every_activation_goes_there_and_back():
    for ours, theirs in settings.THEIR_ACTIVATIONS.items():
        assert settings.ACTIVATIONS[theirs] == ours
