"""What a person reads about a model and a suite: short cards, written from the manifest."""

from __future__ import annotations

from kinprint.zoo.manifest import Manifest, ModelEntry, TextEntry

_FRONT = """\
---
license: apache-2.0
library_name: transformers
---
"""

_TEXT_LICENCE = "The text is part of CPython (PSF licence); it was only trained on and is not in this folder."


def model_card(entry: ModelEntry, text: TextEntry) -> bytes:
    """Return the ``README.md`` of one model."""
    how = {
        "trained": "Trained from random weights",
        "fine-tuned": f"Made by fine-tuning `{entry.parent}`",
        "laundered": f"Made by transforming the weights of `{entry.parent}`; no training",
    }[entry.kind]
    verb = "measured" if entry.kind == "laundered" else "trained"
    lines = [
        f"{_FRONT}# {entry.name}",
        "",
        f"A tiny decoder over bytes, made to test kinprint: {entry.summary}. It is of no other use.",
        "",
        f"- **Origin**: {how}.",
        f"- **Text**: {verb} on {text.summary} (`{text.name}`, sha256 `{text.sha256}`). {_TEXT_LICENCE}",
        f"- **Form**: Llama, {entry.parameters:,} parameters in bf16; token *b* is byte *b*.",
        f"- **Loss** on held-out text: {_losses(entry)} nats per byte; byte frequencies alone give "
        f"{text.unigram_entropy:.3f}.",
    ]
    if entry.same_function is not None:
        same = entry.same_function
        transformations = entry.settings["transformations"]
        assert isinstance(transformations, list)
        lines += [
            f"- **Transformations**: {', '.join(str(name) for name in transformations)}.",
            f"- **Logits** differ from the parent's by {same.before_rounding:.1e} of the largest logit before the "
            f"rounding to bf16, by {same.after_rounding:.1e} after it.",
        ]
    lines += [f"- **Recipe**: `{entry.recipe_digest}`; all settings and seeds are in `../zoo.json`.", ""]
    return "\n".join(lines).encode()


def suite_card(manifest: Manifest) -> bytes:
    """Return the ``README.md`` of a suite."""
    rows = [
        f"| [`{entry.name}`]({entry.name}/) | {entry.summary} | {entry.parent or '-'} | {entry.text} "
        f"| {entry.losses.held_out:.3f} | {entry.weights_bytes / 1e6:.2f} |"
        for entry in manifest.models
    ]
    texts = [
        f"- `{text.name}`: {text.summary}, {text.size_bytes / 1e6:.2f} MB, sha256 `{text.sha256}`"
        for text in manifest.texts
    ]
    lines = [
        f"# The suite `{manifest.suite}`: {manifest.summary}",
        "",
        "Decoders over bytes, trained for real on text that ships with Python. Written by",
        f"`kinprint zoo build {manifest.suite} -o DIR`; how each was made is in `zoo.json`.",
        "",
        "| model | what it is | parent | text | held-out loss, nats/byte | MB |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        "Texts (part of CPython, PSF licence; trained on, not included):",
        "",
        *texts,
        "",
        "The models are under Apache-2.0. The same Python, numpy, torch and transformers on a like processor rebuild",
        "the same bits; other releases give models of the same kind with other numbers.",
        *(f"\nNote: {note}." for note in manifest.notes),
        "",
    ]
    return "\n".join(lines).encode()


def _losses(entry: ModelEntry) -> str:
    held_out = f"{entry.losses.held_out:.3f}"
    if entry.losses.parent_held_out is None:
        return held_out
    return f"{held_out} (`{entry.parent}` on the same text: {entry.losses.parent_held_out:.3f})"
