"""Commands that ask a language model: prompt, replies, paraphrase."""

from pathlib import Path
from typing import Annotated

import typer

from minillm.commands.shared import Json, RunPath, Set, app, output, prepare


@app.command(
    epilog='Example: `minillm prompt runs/bert-zh --data configs/sentiment-zh.toml --template "{text}总之很{label}。" '
    "--words neg=差,pos=好 --shots 0,4`"
)
def prompt(
    run: RunPath,
    data: Annotated[Path | None, typer.Option(help="A config with labelled data, and maybe a [prompt]")] = None,
    template: Annotated[str | None, typer.Option(help="With {text} and {label}")] = None,
    words: Annotated[str | None, typer.Option(help="A word for each class: neg=差,pos=好")] = None,
    shots: Annotated[str | None, typer.Option(help="Numbers of demonstrations, such as 0,1,4")] = None,
    demonstrations: Annotated[str | None, typer.Option(help="random, or similar to the text")] = None,
    seeds: Annotated[str, typer.Option(help="Of random demonstrations")] = "0,1,2",
    split: Annotated[str, typer.Option(help="validation or test")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Texts to ask about, at most")] = None,
    overrides: Set = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Ask a pretrained run for labels by a template and words, zero- and few-shot, plain and calibrated."""
    prepare()
    from minillm.experiment import display
    from minillm.experiment.ask import prompt as prompting

    sections = {} if data is None else prompting.read_config(data, overrides)
    said = {"template": template, "words": words, "shots": shots, "demonstrations": demonstrations}
    sections = prompting.with_options(sections, {name: value for name, value in said.items() if value is not None})
    wanted = prompting.Wanted(split, limit, tuple(prompting.numbers(seeds, "--seeds")))
    found = prompting.prompt(run, sections, str(data or run), wanted)
    output(found, as_json, lambda: display.prompts(found))


@app.command(epilog="Example: `minillm replies runs/dialogue --candidates 10`")
def replies(
    run: RunPath,
    split: Annotated[str, typer.Option(help="validation or test")] = "validation",
    candidates: Annotated[int, typer.Option(help="Replies to choose from, the right one among them")] = 10,
    limit: Annotated[int, typer.Option(min=1, help="Questions at most")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the candidates and of sampling")] = 0,
    as_json: Json = False,
) -> None:
    """Judge a run on questions and replies: how often it finds the right reply, and how varied those are that it writes."""
    prepare()
    from minillm.experiment import display_replies
    from minillm.experiment.ask import replies as answering

    found = answering.replies(run, split, candidates, limit, seed)
    output(found, as_json, lambda: display_replies.show(found))


@app.command(
    epilog="Example: `minillm paraphrase configs/back-translation.toml --there runs/translate --back runs/translate-back "
    "--out runs/paraphrases.jsonl`"
)
def paraphrase(
    config: Annotated[Path, typer.Argument(help="A config, a lab's config, or the folder of a run")],
    there: Annotated[Path, typer.Option(help="A run that translates into another language")],
    back: Annotated[Path, typer.Option(help="A run that translates from there")],
    out: Annotated[Path, typer.Option(help="The file to write, for augment.paraphrases")],
    samples: Annotated[
        int, typer.Option(min=1, help="Paraphrases per text: the likeliest, and further ones drawn")
    ] = 1,
    temperature: Annotated[float, typer.Option(help="Of the further ones")] = 0.7,
    seed: Annotated[int, typer.Option(min=0, help="Of the further ones")] = 0,
    overrides: Set = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Put the training texts of a config in other words, by two of the project's translators: back-translation."""
    prepare()
    from minillm.experiment.ask import paraphrase as rewording

    tell = lambda text: None if as_json else typer.echo(text)
    wanted = rewording.Wanted(samples, temperature, seed)
    found = rewording.paraphrase(config, overrides, (there, back), out, wanted, tell)
    output(found, as_json, lambda: rewording.show(found))
