"""``kinprint zoo``: the models that kinprint is tested on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from kinprint.cli.options import JobsOption, ModelArgument, PlainOption, QuietOption, console
from kinprint.cli.progress import showing_progress

if TYPE_CHECKING:
    from kinprint.zoo.sparse import Dtype, Kind, Layout

app = typer.Typer(help="Train and derive the models that kinprint is tested on.", no_args_is_help=True)


@app.command("build")
def zoo_build(
    suite: Annotated[
        str,
        typer.Argument(
            metavar="SUITE",
            help="Which models: examples, smoke, tiny, null, compositions, threes, small, real, real-llm.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where to write them.")],
    jobs: JobsOption = 1,
    quiet: QuietOption = False,
) -> None:
    """Train and derive a suite of small models; goes on where an earlier run stopped. Needs the torch extra.

    Prints the path of the manifest, which says what each model was made from.
    """
    from kinprint import zoo

    with showing_progress(quiet) as progress:
        manifest = zoo.build(suite, output, jobs=jobs, progress=progress)
    if not quiet:
        typer.echo(str(manifest))


@app.command("derive")
def zoo_derive(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write.")],
    kind: Annotated[
        list[str],
        typer.Option(
            "--kind",
            "-k",
            metavar="KIND",
            help="What to do, as NAME or NAME:setting=value,setting=value; repeatable, in order. See 'zoo kinds'.",
        ),
    ],
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything drawn.")] = 0,
    quiet: QuietOption = False,
) -> None:
    """Derive a model from another: fine-tune, prune, merge, upcycle, quantise, or rewrite it and keep its function.

    Function-preserving kinds are checked by logits. Writes the model and zoo.json, which says how it was made.
    """
    from kinprint.zoo.single import derive_folder

    with showing_progress(quiet) as progress:
        manifest = derive_folder(Path(model), output, kind, seed=seed, progress=progress)
    if not quiet:
        typer.echo(str(manifest))


@app.command("kinds")
def zoo_kinds(no_color: PlainOption = False) -> None:
    """List every kind of derivation with its settings and their defaults."""
    from kinprint.report.terminal import print_kinds
    from kinprint.zoo.derive import KINDS

    print_kinds(
        [(kind.name, kind.summary, kind.preserving, kind.describe_settings()) for kind in KINDS.values()],
        console(no_color),
    )


@app.command("sparse")
def zoo_sparse(
    shape: Annotated[
        str,
        typer.Argument(
            metavar="SHAPE",
            help="glm-4.5-air, glm-4.5-air-dense, llama-3-8b, llama-3-70b, mistral-7b, tiny-moe or tiny-dense.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write.")],
    kind: Annotated[
        str,
        typer.Option("--kind", "-k", metavar="KIND", help="stranger, finetuned, upcycled or laundered."),
    ] = "stranger",
    base: Annotated[
        Path | None,
        typer.Option("--base", metavar="DIR", help="What it comes from; a stranger has data where this has."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything drawn.")] = 0,
    layers: Annotated[int | None, typer.Option("--layers", metavar="N", help="Only the first so many layers.")] = None,
    filled: Annotated[
        int, typer.Option("--filled", metavar="N", help="Layers that hold data, if no base says it.")
    ] = 6,
    filled_experts: Annotated[
        int, typer.Option("--filled-experts", metavar="N", help="Experts that do in each of them.")
    ] = 8,
    layout: Annotated[
        str, typer.Option("--layout", metavar="LAYOUT", help="Of experts: per-expert or fused.")
    ] = "per-expert",
    dtype: Annotated[str, typer.Option("--dtype", metavar="DTYPE", help="bf16 or fp8.")] = "bf16",
    change: Annotated[
        float, typer.Option("--change", metavar="FLOAT", help="Noise of a child, relative to the weights.")
    ] = 0.1,
    no_embeddings: Annotated[
        bool, typer.Option("--no-embeddings", help="Leave embedding and output matrix as holes.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Write a checkpoint as long as a real one with data in a few layers and holes elsewhere, for tests of scale.

    The file system must know sparse files. Prints the folder, its apparent and its actual size in bytes.
    """
    from kinprint.zoo.sparse import folder_bytes, write_sparse

    with showing_progress(quiet) as progress:
        write_sparse(
            shape,
            output,
            seed=seed,
            kind=cast("Kind", kind),  # write_sparse refuses other words, here and below
            base=base,
            layers=layers,
            filled=filled,
            filled_experts=filled_experts,
            layout=cast("Layout", layout),
            dtype=cast("Dtype", dtype),
            change=change,
            embeddings=not no_embeddings,
            progress=progress,
        )
    if not quiet:
        apparent, actual = folder_bytes(output)
        typer.echo(f"{output}: {apparent} bytes long, {actual} on disk")
