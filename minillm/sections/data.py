"""The [data] section of a config: every key with its type, default and limits, and which source reads which."""

from dataclasses import dataclass, fields
from typing import Literal

from minillm.data.catalogues import PAIRED
from minillm.data.packages import ANSWERS, LABELS, PARTED, TAGGED

STRICT = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
SYNTHETIC = ("copy", "reverse")  # sources that are no text
IMAGES = ("digits",)


@dataclass(frozen=True)
class DataConfig:
    """Where the text comes from, how it is cleaned, split and cut into examples."""

    __pydantic_config__ = STRICT

    # "text", "jsonl", "csv", "tsv", "lines" (text:label), "conll" with `path`; a package corpus such as "python-docs";
    # "copy" or "reverse"; "digits"
    source: str
    path: str | None = None
    text_key: str = "text"  # the field of jsonl, the column of csv and tsv
    label_key: str | None = None  # the field or column that holds the label
    pair_key: str | None = None  # that of the second sentence, or of the passage that holds the answer to a question
    answer_key: str | None = None  # that of the answer, for the objective span_qa
    start_key: str | None = None  # that of the passage's character that the answer begins with; None: its first place
    target_key: str | None = None  # that of what is to be written, for sequence_to_sequence
    domain_key: str | None = None  # that of the text's domain
    domains: tuple[str, ...] | None = None  # that are read, in this order; None: nobody asks where a text comes from
    test_domains: tuple[str, ...] | None = None  # others, of whose texts the test part is
    # the classes in order (tags: the kinds of entities); none, and labels are numbers. Labelled documents are cleaned as
    # such (`data/labels.py`), and every part gets its share of each class
    labels: tuple[str, ...] = ()
    label_separator: str | None = None  # what parts several classes inside one field; None: a field is one class
    validation_path: str | None = None  # held-out parts of their own; None: shares of `path`
    test_path: str | None = None
    drop_leaks: bool = False  # texts in two given parts leave the part that is nearer to training; else an error
    separator: str | None = None  # what parts the documents inside a text file; None: one file is one document
    normalization: Literal["none", "NFC", "NFKC"] = "none"
    drop_duplicates: bool = True
    drop_repeated_lines: bool = False
    validation: float = 0.1  # share of the documents
    test: float = 0.0
    # windows over everything; whole documents that cannot see each other; or rows that go on from step to step, with
    # the model's state carried along
    packing: Literal["stream", "packed", "continued"] = "stream"
    length: int | None = None  # tokens per example; None: the model's context
    target_length: int | None = None  # tokens of what is to be written; None: as many
    limit: int | None = None  # characters of text to use at most; None: all
    split_seed: int = 0
    symbols: int = 10  # copy and reverse: alphabet
    copy_length: int = 8  # copy and reverse: symbols to remember
    shifts: int = 0  # digits: an image of training moves by up to so many pixels each way

    def __post_init__(self):
        if not 0.0 < self.validation < 1.0 or not 0.0 <= self.test < 1.0 or self.validation + self.test >= 1.0:
            raise ValueError("validation must be in (0, 1), test in [0, 1), and their sum below 1")
        for name in ("length", "target_length", "limit", "copy_length"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.shifts < 8:
            raise ValueError(f"shifts must be in [0, 8), got {self.shifts}")
        if self.source in SYNTHETIC and self.length is not None:
            raise ValueError(f"length follows from copy_length in the {self.source} task: leave it out")
        self._check_labels()
        if self.symbols < 4:  # held-out strings are told from the others by a sum modulo 4
            raise ValueError(f"symbols must be at least 4, got {self.symbols}")

    def _check_labels(self) -> None:
        if len(set(self.labels)) < len(self.labels) or any(not name or name != name.strip() for name in self.labels):
            raise ValueError(f"labels must be different, not empty, without blanks around them, got {self.labels}")
        if self.label_separator is not None and not (self.labels and self.label_separator):
            raise ValueError("label_separator is a string between the classes of labels: set labels, or leave it out")
        for name in self.labels:
            if self.label_separator and self.label_separator in name:
                raise ValueError(f"label_separator {self.label_separator!r} stands inside of the class {name!r}")
        if self.source == "lines" and set(":：") & set("".join((*self.labels, self.label_separator or ""))):
            raise ValueError("a colon parts text and label in lines: labels and label_separator must not hold one")
        if self.answer_key is not None and (self.pair_key is None or self.label_key is not None or self.labels):
            raise ValueError("answer_key needs pair_key, the passage; label_key and labels say nothing beside it")
        if self.start_key is not None and self.answer_key is None:
            raise ValueError("start_key says nothing without answer_key: leave it out")
        if self.source in TABLES and self.labels and self.label_key is None:
            raise ValueError("label_key is missing: which field holds the labels?")
        self._check_domains()
        names = ("text_key", "label_key", "pair_key", "answer_key", "start_key", "target_key", "domain_key")
        keys = [getattr(self, name) for name in names if getattr(self, name) is not None]
        if len(set(keys)) < len(keys):
            raise ValueError(f"{', '.join(names)} must be different fields, got {', '.join(keys)}")
        if self.target_key is not None and (is_labelled(self) or self.pair_key is not None):
            raise ValueError("a record has labels or a target: leave out labels, label_key and pair_key, or target_key")
        if self.target_length is not None and not is_paired(self):
            raise ValueError("target_length is for pairs of texts: set target_key, or leave it out")
        given = [name for name in ("validation", "test") if getattr(self, f"{name}_path") is not None]
        for name in given:
            if not is_labelled(self) and not is_paired(self):
                raise ValueError(f"{name}_path is for labelled data: set labels or label_key, or leave it out")
            if getattr(self, name) != getattr(DataConfig, name):
                raise ValueError(f"{name} says nothing where {name}_path is given: leave it out")
        if self.drop_leaks and not given:
            raise ValueError("drop_leaks says nothing without validation_path or test_path: leave it out")
        if self.drop_repeated_lines and (is_labelled(self) or is_paired(self)):
            raise ValueError("drop_repeated_lines would change labelled texts: leave it out")

    def _check_domains(self) -> None:
        named = (*(self.domains or ()), *(self.test_domains or ()))
        if self.domains is None and (self.domain_key, self.test_domains) != (None, None):
            raise ValueError("domain_key and test_domains say nothing without domains: set it, or leave them out")
        if () in (self.domains, self.test_domains) or len(set(named)) < len(named) or not all(map(str.strip, named)):
            raise ValueError(f"domains and test_domains are different names, at least one each, got {list(named)}")
        if named and not self.labels:
            raise ValueError("domains are of labelled texts: set labels, or leave them out")
        if named and self.source in TABLES and self.domain_key is None:
            raise ValueError("domain_key is missing: which field holds the domain?")
        if self.test_domains is not None and (self.test_path is not None or self.test):
            raise ValueError("test and test_path say nothing where test_domains are the test part: leave them out")


TEXT_KEYS = {"path", "text_key", "label_key", "pair_key", "answer_key", "start_key", "labels", "label_separator", "validation_path", "test_path",
             "drop_leaks", "separator", "normalization", "drop_duplicates", "drop_repeated_lines", "validation", "test",
             "packing", "length", "limit", "split_seed", "target_key", "target_length", "domain_key", "domains", "test_domains"}  # fmt: skip
TABLES, LABELLED_FILES = ("jsonl", "csv", "tsv"), ("lines", "conll")
FILE_SOURCES = ("text", *TABLES, *LABELLED_FILES)
FILE_KEYS = {"path", "text_key", "separator", "validation_path", "test_path", "drop_leaks"}
FIELD_KEYS = {"label_key", "pair_key", "answer_key", "start_key", "target_key", "domain_key"}  # of tables only
SYNTHETIC_KEYS, IMAGE_KEYS = {"symbols", "copy_length"}, {"shifts"}


def is_labelled(data: DataConfig) -> bool:
    """Whether the documents are read, cleaned and split as labelled ones."""
    return bool(data.labels) or data.label_key is not None or data.source in LABELLED_FILES or has_answers(data)


def has_answers(data: DataConfig) -> bool:
    """Whether the documents are questions with a passage each, in which their answer stands."""
    return data.answer_key is not None or data.source in ANSWERS


def is_paired(data: DataConfig) -> bool:
    """Whether the documents are pairs of a text and what is to be written for it."""
    return data.target_key is not None or data.source in PAIRED


def unread_keys(data: DataConfig) -> list[str]:
    """Keys that are set but say nothing to the source."""
    read = IMAGE_KEYS if data.source in IMAGES else SYNTHETIC_KEYS if data.source in SYNTHETIC else TEXT_KEYS
    read = read if data.source in FILE_SOURCES else read - FILE_KEYS
    read = read if data.source in TABLES else read - FIELD_KEYS
    if data.source in LABELLED_FILES:
        read = read - {"text_key", "separator"}
    read = read if data.source in (*TABLES, "lines") else read - {"label_separator"}
    read = read if data.source in (*TABLES, *LABELLED_FILES, *LABELS, *TAGGED) else read - {"labels"}
    read = read if data.source in (*TABLES, *PARTED) else read - {"domains", "test_domains"}
    return [f.name for f in fields(data) if f.name not in read | {"source"} and getattr(data, f.name) != f.default]
