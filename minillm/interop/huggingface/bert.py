"""BERT: bert-base-uncased and its kin, bare or with a head, under transformers' Bert... names.

The position ids are a buffer; the masked-LM decoder repeats the word embedding, and its bias stands under two names.
Files from before 2020 call a LayerNorm's weight and bias gamma and beta.
"""

from collections.abc import Iterable
from typing import Any

from minillm.interop.huggingface.names import Table, dense, norm, row
from minillm.interop.huggingface.settings import Settings, refuse, table_of_labels
from minillm.models import bert as model
from minillm.models.bert import Config

KIND, PREFIX = "bert", "bert."
BARE = "BertModel"  # the class whose files leave the prefix out
# their class -> tasks of ours that it certainly has; the pooler is there where the file has it
CLASSES = {
    BARE: (),
    "BertForPreTraining": ("masked", "next_sentence"),
    "BertForMaskedLM": ("masked",),
    "BertForNextSentencePrediction": ("next_sentence",),
    "BertForSequenceClassification": ("classify",),
    "BertForTokenClassification": ("tag",),
    "BertForQuestionAnswering": ("span",),
}
TASKS = {"cls.predictions.": "masked", "cls.seq_relationship.": "next_sentence", "qa_outputs.": "span"}
BUFFERS = {"*embeddings.position_ids": "0, 1, 2, ...", "*embeddings.token_type_ids": "zeros"}
ENDINGS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def read_config(settings: Settings, names: Iterable[str]) -> Config:
    """config.json and the names of the tensors -> our Config."""
    architecture = settings.architecture(tuple(CLASSES))
    for key, supported in (("position_embedding_type", "absolute"), ("is_decoder", False), ("tie_word_embeddings", True),
                           ("add_cross_attention", False), ("layer_norm_eps", model.EPSILON)):  # fmt: skip
        settings.only(key, supported)
    settings.only("hidden_act", "gelu", "gelu")
    dropout = settings.rate("hidden_dropout_prob", "attention_probs_dropout_prob", default=0.1)
    settings.only("classifier_dropout", dropout)
    config = Config(
        vocabulary=settings.take("vocab_size"), context=settings.take("max_position_embeddings"),
        layers=settings.take("num_hidden_layers"), width=settings.take("hidden_size"),
        heads=settings.take("num_attention_heads"), hidden=settings.take("intermediate_size"),
        token_types=settings.take("type_vocab_size", default=2), tasks=_tasks(architecture, names),
        labels=settings.labels(), dropout=dropout,
    )  # fmt: skip
    settings.finish(("directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
                     "pooler_size_per_head", "pooler_type"))  # fmt: skip
    return config


def _tasks(architecture: str, names: Iterable[str]) -> tuple[str, ...]:
    """The heads of the class, and those that the file has besides."""
    names = list(names)
    there = lambda beginning: any(name.startswith(beginning) for name in names)
    tasks = set(CLASSES[architecture]) | {task for beginning, task in TASKS.items() if there(beginning)}
    if there(f"{PREFIX}pooler.") or there("pooler."):
        tasks |= set() if tasks & model.POOLED else {"pool"}
    if there("classifier.") and not tasks & {"classify", "tag"}:
        tasks |= {"classify"}
    return tuple(task for task in ("pool", "masked", "next_sentence", "classify", "tag", "span") if task in tasks)


def write_config(config: Config) -> dict[str, Any]:
    """Our Config -> config.json. Raises: UserError for heads that no one class of theirs has together."""
    tasks = set(config.tasks) - {"pool"}
    classes = [name for name, heads in CLASSES.items() if set(heads) == tasks]
    if not classes:
        together = ", ".join(sorted(tasks))
        refuse(f"the heads {together} on one BERT", "export a run whose model.tasks has one of them")
    if config.position != "learned":
        refuse(f"{config.position} positions in a BERT", 'export a run with model.position = "learned"')
    if config.marks:
        refuse("a classifier that reads marked tokens", "export a run without objective.markers")
    if "next_sentence" in tasks and config.relations != 2:
        refuse(f"{config.relations} relations of sentences", "only next_sentence with model.relations = 2 has a class")
    labels = {"classify", "tag", "span"} & tasks
    return {
        "model_type": "bert", "architectures": classes, "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context, "num_hidden_layers": config.layers, "hidden_size": config.width,
        "num_attention_heads": config.heads, "intermediate_size": config.hidden or 4 * config.width,
        "type_vocab_size": config.token_types, "hidden_act": "gelu", "layer_norm_eps": model.EPSILON,
        "hidden_dropout_prob": config.dropout, "attention_probs_dropout_prob": config.dropout,
    } | (table_of_labels(2 if "span" in labels else config.labels) if labels else {})  # fmt: skip


def table(config: Config) -> Table:
    """The name table."""
    layer, embeddings = f"{PREFIX}encoder.layer.@", f"{PREFIX}embeddings"
    rows = [
        row(f"{embeddings}.word_embeddings.weight", "embedding/table"),
        row(f"{embeddings}.position_embeddings.weight", "position/table"),
        row(f"{embeddings}.token_type_embeddings.weight", "token_type/table"),
        *norm(f"{embeddings}.LayerNorm", "embedding_norm"),
        *dense(f"{layer}.attention.self.query", "blocks/attention/query"),
        *dense(f"{layer}.attention.self.key", "blocks/attention/key"),
        *dense(f"{layer}.attention.self.value", "blocks/attention/value"),
        *dense(f"{layer}.attention.output.dense", "blocks/attention/output"),
        *norm(f"{layer}.attention.output.LayerNorm", "blocks/attention_norm"),
        *dense(f"{layer}.intermediate.dense", "blocks/feedforward/up"),
        *dense(f"{layer}.output.dense", "blocks/feedforward/down"),
        *norm(f"{layer}.output.LayerNorm", "blocks/feedforward_norm"),
    ]
    heads = {
        "masked": (*dense("cls.predictions.transform.dense", "masked/transform"),
                   *norm("cls.predictions.transform.LayerNorm", "masked/norm"), row("cls.predictions.bias", "masked/bias")),
        "next_sentence": dense("cls.seq_relationship", "next_sentence"),
        "classify": dense("classifier", "classify"),
        "tag": dense("classifier", "tag"),
        "span": dense("qa_outputs", "span"),
    }  # fmt: skip
    rows += dense(f"{PREFIX}pooler.dense", "pooler") if model.pooled(config) else ()
    rows += [row for task in config.tasks if task in heads for row in heads[task]]
    copies = {
        "cls.predictions.decoder.weight": f"{embeddings}.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    return Table(tuple(rows), PREFIX, copies if "masked" in config.tasks else {}, BUFFERS, ENDINGS)
