"""transformers -> us -> transformers, every model and head: the same logits, the same bits, no name left over."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from minillm.interop import huggingface
from minillm.models import MODELS
from minillm.models.contract import bind

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]  # third parties warn about themselves

BERT = {"vocab_size": 23, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
        "max_position_embeddings": 12}  # fmt: skip
GPT2 = {"vocab_size": 23, "n_positions": 12, "n_embd": 16, "n_layer": 2, "n_head": 2}
T5 = {"vocab_size": 23, "d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 2}
VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 8,
       "patch_size": 4, "num_channels": 3, "encoder_stride": 4}  # fmt: skip

# class, its Auto class, settings, fields of the answer -> our function of (model, params, hidden)
LOGITS = {"logits": "logits"}
CASES = {
    "bert": ("BertModel", "AutoModel", BERT, {"last_hidden_state": None, "pooler_output": "pool"}),
    "bert masked": ("BertForMaskedLM", "AutoModelForMaskedLM", BERT, LOGITS),
    "bert pretraining": ("BertForPreTraining", "AutoModelForPreTraining", BERT,
                         {"prediction_logits": "logits", "seq_relationship_logits": "next_sentence"}),
    "bert next sentence": ("BertForNextSentencePrediction", "AutoModelForNextSentencePrediction", BERT, {"logits": "next_sentence"}),
    "bert classify": ("BertForSequenceClassification", "AutoModelForSequenceClassification", BERT | {"num_labels": 3},
                      {"logits": "classify"}),
    "bert tag": ("BertForTokenClassification", "AutoModelForTokenClassification", BERT | {"num_labels": 5}, {"logits": "tag"}),
    "bert span": ("BertForQuestionAnswering", "AutoModelForQuestionAnswering", BERT, {"start_logits": ("span", 0), "end_logits": ("span", 1)}),
    "gpt2": ("GPT2LMHeadModel", "AutoModelForCausalLM", GPT2, LOGITS),
    "gpt2 untied": ("GPT2LMHeadModel", "AutoModelForCausalLM", GPT2 | {"tie_word_embeddings": False, "n_inner": 20}, LOGITS),
    "llama": ("LlamaForCausalLM", "AutoModelForCausalLM", BERT, LOGITS),
    "llama tied, with biases": ("LlamaForCausalLM", "AutoModelForCausalLM",
                                BERT | {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}, LOGITS),
    "t5": ("T5ForConditionalGeneration", "AutoModelForSeq2SeqLM", T5, LOGITS),
    "t5 1.1": ("T5ForConditionalGeneration", "AutoModelForSeq2SeqLM",
               T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, LOGITS),
    "vit": ("ViTModel", "AutoModel", VIT, {"last_hidden_state": None, "pooler_output": "pool"}),
    "vit classify": ("ViTForImageClassification", "AutoModelForImageClassification", VIT | {"num_labels": 5}, {"logits": "classify"}),
    "vit patches": ("ViTForMaskedImageModeling", "AutoModelForMaskedImageModeling", VIT, {"reconstruction": "patches"}),
}  # fmt: skip


def make_theirs(case):
    """Their model with random weights, saved nowhere yet."""
    import torch
    import transformers

    name, _, sizes, _ = CASES[case]
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    theirs = kind(kind.config_class(**sizes)).eval()
    if case == "t5 1.1":  # transformers 5 would tie what version 1.1 does not
        theirs.lm_head.weight = torch.nn.Parameter(theirs.lm_head.weight.detach().clone())
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(0.5).add_(0.1 * torch.randn_like(parameter))
    return theirs


def random_batch(case):
    """Our batch and theirs, with padding where the model knows it."""
    import torch

    generator = np.random.default_rng(1)
    if case.startswith("vit"):
        images = generator.normal(size=(3, 8, 8, 3)).astype(np.float32)
        theirs = {"pixel_values": torch.tensor(images.transpose(0, 3, 1, 2))}
        ours = {"images": jnp.asarray(images)}
        if case == "vit patches":
            hidden = generator.random((3, 4)) < 0.5
            theirs["bool_masked_pos"], ours["masked_patches"] = torch.tensor(hidden), jnp.asarray(hidden)
        return ours, theirs
    tokens = generator.integers(23, size=(3, 10)).astype(np.int32)
    mask = np.arange(10) < np.array([10, 5, 8])[:, None]
    ids, seen = torch.tensor(tokens).long(), torch.tensor(mask).long()
    if case.startswith("t5"):
        target = generator.integers(23, size=(3, 7)).astype(np.int32)
        return ({"source": jnp.asarray(tokens), "source_mask": jnp.asarray(mask), "tokens": jnp.asarray(target)},
                {"input_ids": ids, "attention_mask": seen, "decoder_input_ids": torch.tensor(target).long()})  # fmt: skip
    if not case.startswith("bert"):
        return {"tokens": jnp.asarray(tokens)}, {"input_ids": ids}
    types = generator.integers(2, size=(3, 10)).astype(np.int32)
    return ({"tokens": jnp.asarray(tokens), "mask": jnp.asarray(mask), "token_types": jnp.asarray(types)},
            {"input_ids": ids, "attention_mask": seen, "token_type_ids": torch.tensor(types).long()})  # fmt: skip


def answers(found, params, batch, fields):
    """field -> what we compute."""
    model = bind(MODELS[found.kind], found.config)
    hidden = model.apply(params, batch).hidden
    results = {}
    for field, head in fields.items():
        name, part = head if isinstance(head, tuple) else (head, None)
        value = (
            hidden
            if name is None
            else model.logits(params, hidden)
            if name == "logits"
            else model.heads[name](params, hidden)
        )
        results[field] = value if part is None else value[..., part]
    if "reconstruction" in results:  # pixels of patches -> images, channels first
        size, channels = found.config.patch, found.config.channels
        patches = np.asarray(results["reconstruction"]).reshape(3, 2, 2, size, size, channels)
        results["reconstruction"] = patches.transpose(0, 5, 1, 3, 2, 4).reshape(3, channels, 2 * size, 2 * size)
    return results


def expected(theirs, batch, fields):
    import torch

    with torch.no_grad():
        found = theirs(**batch)
    return {field: found[field].numpy() for field in fields}


def load(auto, folder):
    """Their Auto class, which finds every tensor that it wants and wants every tensor that it finds."""
    import transformers

    theirs, notes = getattr(transformers, auto).from_pretrained(folder, output_loading_info=True)
    assert not any(notes[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), notes
    return theirs.eval()


@pytest.mark.parametrize("case", CASES)
def test_logits_survive_the_way_there_and_back(case, tmp_path):
    name, auto, _, fields = CASES[case]
    theirs, (batch, their_batch) = make_theirs(case), random_batch(case)
    theirs.save_pretrained(tmp_path / "theirs")
    want = expected(theirs, their_batch, fields)

    found = huggingface.read(tmp_path / "theirs")
    ours = answers(found, jax.tree.map(jnp.asarray, found.params), batch, fields)
    for field in fields:
        np.testing.assert_allclose(ours[field], want[field], atol=1e-5, rtol=1e-5, err_msg=field)

    (tmp_path / "ours").mkdir()
    huggingface.write(tmp_path / "ours", found.kind, found.config, found.params)
    before, after = (load_file(tmp_path / who / "model.safetensors") for who in ("theirs", "ours"))
    assert set(before) == set(after)
    assert all(before[tensor].tobytes() == after[tensor].tobytes() for tensor in before)
    again = load(auto, tmp_path / "ours")
    assert type(again).__name__ == name
    for field, value in expected(again, their_batch, fields).items():
        np.testing.assert_array_equal(value, want[field], err_msg=field)


@pytest.mark.parametrize("case", CASES)
def test_changed_weights_go_out_as_they_are(case, tmp_path):
    """What a fine-tuned model computes here, transformers computes from its export."""
    _, auto, _, fields = CASES[case]
    make_theirs(case).save_pretrained(tmp_path / "theirs")
    batch, their_batch = random_batch(case)
    found = huggingface.read(tmp_path / "theirs")
    generator = np.random.default_rng(2)
    tuned = jax.tree.map(lambda leaf: leaf + 0.05 * generator.normal(size=leaf.shape).astype(np.float32), found.params)
    (tmp_path / "ours").mkdir()
    huggingface.write(tmp_path / "ours", found.kind, found.config, tuned)
    want = expected(load(auto, tmp_path / "ours"), their_batch, fields)
    ours = answers(found, jax.tree.map(jnp.asarray, tuned), batch, fields)
    for field in fields:
        np.testing.assert_allclose(ours[field], want[field], atol=1e-5, rtol=1e-5, err_msg=field)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_weights(dtype, tmp_path):
    """Their model in a narrow type is read exactly, and written in it with the same bits."""
    import torch

    make_theirs("llama").to(getattr(torch, dtype)).save_pretrained(tmp_path / "theirs")
    found = huggingface.read(tmp_path / "theirs")
    (tmp_path / "ours").mkdir()
    huggingface.write(tmp_path / "ours", found.kind, found.config, found.params, dtype=dtype)
    before, after = (load_file(tmp_path / who / "model.safetensors") for who in ("theirs", "ours"))
    assert all(before[tensor].tobytes() == after[tensor].tobytes() for tensor in before)
    assert load("AutoModelForCausalLM", tmp_path / "ours").dtype == getattr(torch, dtype)


def test_their_shards_are_read(tmp_path):
    theirs = make_theirs("bert pretraining")
    theirs.save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    found = huggingface.read(tmp_path)
    table = theirs.bert.embeddings.word_embeddings.weight.detach().numpy()
    np.testing.assert_array_equal(found.params["embedding"]["table"], table)


SENTENCES = [
    "A man is eating food.", "Someone has a meal.", "The new movie is awesome!", "The cheetah runs after its prey.", "",
    "Il fait beau aujourd'hui; naïve café, 语言模型?", "word " * 400,
]  # fmt: skip


def test_sentence_embeddings_of_real_weights(tmp_path):
    """all-MiniLM-L6-v2 as published: ids, hidden states and embeddings; imported as a run, exported, loaded again."""
    import torch
    import transformers

    from minillm.data import fetch
    from minillm.experiment import exchange
    from minillm.inference.sentence import embed_texts

    source = fetch.unpack("minilm-bert")
    exchange.import_run(source, tmp_path / "run")
    model = exchange.open_model(tmp_path / "run")
    pieces = exchange.load_tokenizer(model.folder)
    reference = transformers.AutoTokenizer.from_pretrained(source)
    theirs = transformers.BertModel.from_pretrained(source).eval()
    batch = reference(SENTENCES, padding=True, truncation=True, max_length=256, return_tensors="pt")
    rows = [row[seen.bool()].tolist() for row, seen in zip(batch.input_ids, batch.attention_mask, strict=True)]
    assert [[pieces.bos, *pieces.encode(text)[:254], pieces.eos] for text in SENTENCES] == rows
    with torch.no_grad():
        hidden = theirs(**batch).last_hidden_state
    seen = batch.attention_mask[..., None]
    mean = torch.nn.functional.normalize((hidden * seen).sum(1) / seen.sum(1))

    apply = bind(MODELS["bert"], model.config).apply
    weights = jax.tree.map(jnp.asarray, model.params)
    found = embed_texts(apply, weights, pieces, SENTENCES, context=256)
    np.testing.assert_allclose(found, mean.numpy(), atol=1e-5)
    assert found[0] @ found[1] > 0.5 > found[0] @ found[2]  # the meal is food, the movie is not

    exchange.export_run(tmp_path / "run", tmp_path / "out")
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "out"))
    assert set(before) - set(after) == {"embeddings.position_ids"}
    assert all(before[tensor].tobytes() == after[tensor].tobytes() for tensor in after)
    with torch.no_grad():
        again = load("AutoModel", tmp_path / "out")(**batch).last_hidden_state
    np.testing.assert_array_equal(again.numpy(), hidden.numpy())
    assert (
        transformers.AutoTokenizer.from_pretrained(tmp_path / "out")(SENTENCES).input_ids
        == reference(SENTENCES).input_ids
    )


LLAMA = "norm = 'rms'\nposition = 'rotary'\nactivation = 'silu'\ngated = true\nbias = false\n"
# kind, objective, its class and Auto class
OWN = {
    "gpt2": ("gpt", "causal", "", "GPT2LMHeadModel", "AutoModelForCausalLM"),
    "llama": ("gpt", "causal", LLAMA, "LlamaForCausalLM", "AutoModelForCausalLM"),
    "bert": ("bert", "masked_next_sentence", "", "BertForPreTraining", "AutoModelForPreTraining"),
    "t5": ("t5", "span", "", "T5ForConditionalGeneration", "AutoModelForSeq2SeqLM"),
}


@pytest.mark.parametrize("name", OWN)
def test_a_run_of_our_own_speaks_in_transformers(name, tmp_path, monkeypatch):
    """`minillm run`, `minillm export hf`, AutoTokenizer and their Auto class: the same ids and logits."""
    import torch
    import transformers

    from minillm import config as configs
    from minillm.experiment import exchange
    from minillm.experiment import run as runs

    kind, objective, style, architecture, auto = OWN[name]
    monkeypatch.chdir(tmp_path)
    parts = (
        "".join(f"Sentence {i} of part {d} says that {i * d} is a number. It does!\n" for i in range(12))
        for d in range(24)
    )
    (tmp_path / "text.txt").write_text("###".join(parts))
    (tmp_path / "c.toml").write_text(
        "[data]\nsource = 'text'\npath = 'text.txt'\nseparator = '###'\n[tokenizer]\nvocabulary = 300\n"
        f"[objective]\nname = '{objective}'\n[model]\nkind = '{kind}'\ncontext = 32\nlayers = 2\nwidth = 32\nheads = 2\n{style}"
        "[train]\nsteps = 2\nbatch_size = 4\nevaluate_batches = 1\n[baselines]\norders = [1]\nxz = false\n"
        f"[sample]\nprompts = ['{'a' if kind == 'gpt' else 'a <mask>'}']\ntokens = 2\n"
    )
    runs.run(configs.load(tmp_path / "c.toml"), tmp_path / "run", False, lambda text: None, lambda step, line: None)
    said = exchange.export_run(tmp_path / "run", tmp_path / "out")
    assert said["architecture"] == architecture
    model = exchange.open_model(tmp_path / "run")
    pieces = exchange.load_tokenizer(model.folder)
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = reference("Sentence 7 says").input_ids
    frame = {"gpt": ([pieces.bos], []), "bert": ([pieces.bos], [pieces.eos]), "t5": ([], [pieces.eos])}[kind]
    assert ids == [*frame[0], *pieces.encode("Sentence 7 says"), *frame[1]]
    assert model.config.vocabulary == len(reference)
    if kind == "bert":
        assert reference.mask_token_id == model.config.vocabulary - 1
    if kind == "t5":
        assert reference.convert_tokens_to_ids("<extra_id_0>") == model.config.vocabulary - 1
    theirs = load(auto, tmp_path / "out")
    fields = CASES["bert pretraining"][3] if kind == "bert" else LOGITS
    row, asked = jnp.asarray([ids]), {"input_ids": torch.tensor([ids])}
    batch = {"source": row, "tokens": row} if kind == "t5" else {"tokens": row}
    asked |= {"decoder_input_ids": torch.tensor([ids])} if kind == "t5" else {}
    ours = answers(model, jax.tree.map(jnp.asarray, model.params), batch, fields)
    for field, value in expected(theirs, asked, fields).items():
        np.testing.assert_allclose(ours[field], value, atol=1e-5, rtol=1e-5, err_msg=field)
