"""Draw docs/images/figure-*.svg: what `kinprint plot` draws of the shipped examples and of two models cut from them.

Usage: python docs/reference/make_figures.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from kinprint import api
from kinprint.report.figures import figure
from kinprint.report.plots import image
from kinprint.types import Comparison
from kinprint.zoo.single import derive_folder

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
EXAMPLES = ROOT / "examples"

DERIVED = {
    "cut": ("laundered", ("depth-cut:drop=1+2",)),
    "upscaled": ("child", ("depth-upscale",)),
}
"""Models that are made for a picture: from which, and by what."""

FIGURES = {
    "laundered": ("place", "layers", "parts", "spectra"),
    "cut": ("layers",),
    "upscaled": ("layers",),
    "twin": ("layers", "gains", "sigmas"),
}
"""Figures of each model against the base."""


def comparison(name: str, folder: Path) -> Comparison:
    """Return a model set against the base; one that does not ship is derived first."""
    suspect = EXAMPLES / name
    if name in DERIVED:
        start, kinds = DERIVED[name]
        suspect = folder / name
        derive_folder(EXAMPLES / start, suspect, kinds)
    # Thorough, so that the layers are compared although an exact test decides before.
    controls = [] if name == "twin" else [EXAMPLES / "twin"]
    mode = "thorough" if name in DERIVED else "default"
    return api.compare(
        suspect, EXAMPLES / "base", controls=controls, mode=mode, methods=("layernorm", "intrinsic", "ghostspec-mse")
    )


def main() -> None:
    """Draw every picture."""
    with tempfile.TemporaryDirectory() as folder:
        for name, kinds in FIGURES.items():
            made = comparison(name, Path(folder))
            for kind in kinds:
                path = IMAGES / f"figure-{kind}-{name}.svg"
                path.write_bytes(image(figure(kind, made), "svg"))
                print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
