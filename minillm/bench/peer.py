"""The peer: transformers' GPT-2 in torch eager mode, of the same size and with the same optimizer, on the CPU."""

import functools
import time

import torch
import transformers

from minillm.allocator import usable_cores
from minillm.bench.sizes import BETAS, CLIP_NORM, LEARNING_RATE, WEIGHT_DECAY, Sizes, random_tokens


class Side:
    """What `ours.Side` does, in torch; `attention` is "eager" (plain products) or "sdpa" (torch's fused attention)."""

    def __init__(self, sizes: Sizes, attention: str):
        torch.set_num_threads(usable_cores())
        torch.manual_seed(0)
        transformers.logging.set_verbosity_error()
        self.sizes, self.attention = sizes, attention
        self.versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        tokens = random_tokens(sizes.batch, sizes.length, sizes.vocabulary)
        self.tokens = torch.tensor(tokens, dtype=torch.long)
        texts = random_tokens(sizes.tune_batch, sizes.tune_length, sizes.tune_vocabulary)
        self.texts, self.classes = torch.tensor(texts, dtype=torch.long), torch.arange(sizes.tune_batch) % 2

    def step(self, kind: str = "gpt") -> dict:
        """One training step of the GPT-2, or of a BERT on two classes."""
        model, optimizer = self.tuning if kind == "bert" else self.training
        model.train()
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        if kind == "bert":
            loss = model(input_ids=self.texts, labels=self.classes).loss
        else:  # it shifts the labels itself
            loss = model(input_ids=self.tokens, labels=self.tokens, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        return {"loss": loss.item(), "seconds": time.perf_counter() - start}

    def evaluate(self) -> dict:
        """One evaluation step."""
        model, _ = self.training
        model.eval()
        start = time.perf_counter()
        with torch.inference_mode():
            loss = model(input_ids=self.tokens, labels=self.tokens, use_cache=False).loss.item()
        return {"loss": loss, "seconds": time.perf_counter() - start}

    def generate(self, rows: int) -> dict:
        """`rows` continuations drawn at temperature 1 from the whole vocabulary."""
        prompts = torch.tensor(random_tokens(rows, self.sizes.prompt, self.sizes.generate_vocabulary), dtype=torch.long)
        settings = transformers.GenerationConfig(
            max_new_tokens=self.sizes.tokens, do_sample=True, top_k=0, use_cache=True, pad_token_id=0
        )
        start = time.perf_counter()
        with torch.inference_mode():
            new = self.generator.generate(prompts, attention_mask=torch.ones_like(prompts), generation_config=settings)
        return {"seconds": time.perf_counter() - start, "tokens": new.numel() - prompts.numel()}

    @functools.cached_property
    def training(self) -> tuple:
        model = self._model(self.sizes.vocabulary)
        optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, BETAS, weight_decay=WEIGHT_DECAY)
        return model, optimizer

    @functools.cached_property
    def tuning(self) -> tuple:
        sizes = self.sizes
        model = transformers.BertForSequenceClassification(transformers.BertConfig(
            vocab_size=sizes.tune_vocabulary, max_position_embeddings=sizes.tune_length, hidden_size=sizes.tune_width,
            num_hidden_layers=sizes.tune_layers, num_attention_heads=sizes.tune_heads,
            intermediate_size=4 * sizes.tune_width, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
            attn_implementation=self.attention))  # fmt: skip
        return model, torch.optim.AdamW(model.parameters(), LEARNING_RATE, BETAS, weight_decay=WEIGHT_DECAY)

    @functools.cached_property
    def generator(self):
        return self._model(self.sizes.generate_vocabulary).eval()

    def _model(self, vocabulary: int):
        sizes = self.sizes
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(
            vocab_size=vocabulary, n_positions=sizes.length, n_embd=sizes.width, n_layer=sizes.layers,
            n_head=sizes.heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
            attn_implementation=self.attention))  # fmt: skip
