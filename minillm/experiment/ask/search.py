"""`minillm search`: the passages of a file that come nearest to a question, by meaning, by words, or by both."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from minillm.errors import UserError
from minillm.evaluation import retrieval
from minillm.experiment import base, exchange
from minillm.experiment.ask.reopen import open_run
from minillm.experiment.results import refuse_surrogates
from minillm.inference.sentence import embed_texts
from minillm.models import MODELS
from minillm.models.contract import bind

METHODS = ("dense", "words", "both")


def search(
    model: str, passages: Sequence[str], queries: Sequence[str], method: str = "both", top: int = 5
) -> list[dict[str, Any]]:
    """For each query its `top` passages, best first: {"query", "passages": [{"line", "score", "text"}]}.

    model: a run of a BERT or a model that `minillm fetch` knows; with "words" it is not read. Raises: UserError.
    """
    refuse_surrogates([*passages, *queries])
    if method not in METHODS:
        raise UserError(f"unknown method {method!r}", "--method", f"use {', '.join(METHODS)}")
    if not passages or not queries or not all(query.strip() for query in queries):
        raise UserError("a query and a passage at least are needed", "--query, --file", "write something")
    scores = [retrieval.bm25(retrieval.build(passages), queries)] if method != "dense" else []
    if method != "words":
        embed = embedder(model)
        scores.append(embed(queries) @ embed(passages).T)
    table = scores[0] if len(scores) == 1 else retrieval.reciprocal_fusion(*scores)
    found = []
    for query, row in zip(queries, table, strict=True):
        best = [i for i in np.argsort(-row, kind="stable")[:top] if method != "words" or row[i] > 0.0]
        rows = [{"line": int(i) + 1, "score": round(float(row[i]), 6), "text": passages[i]} for i in best]
        found.append({"query": query, "passages": rows})
    return found


def embedder(model: str) -> Any:
    """texts -> embeddings [texts, model] of length 1, by a BERT's mean hidden state. Raises: UserError."""
    root = base.locate(model)
    found = exchange.open_model(root)
    if found.kind != "bert":
        raise UserError(f"a {found.kind} reads one way, or no text", model, "use a BERT, such as minilm-bert")
    own = found.manifest.get("imported") is None
    tokenizer = open_run(root).tokenizer if own else exchange.load_tokenizer(found.folder)
    encode = bind(MODELS["bert"], found.config).apply
    return functools.partial(embed_texts, encode, found.params, tokenizer, context=found.config.context)
