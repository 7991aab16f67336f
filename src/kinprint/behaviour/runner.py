"""A local causal language model that runs on probes: states, logits, attention maps and answers.

Axes: N = probes, L = decoder blocks, D = residual coordinates, V = tokens of the vocabulary, T = tokens of a text,
H = attention heads.

Texts of one pass are padded on the right and every number is taken at real tokens, which causal attention keeps free
of what follows; so what stands beside a text in a batch changes at most its last bits. Everything is greedy or scored,
nothing is drawn. The same model on the same machine gives the same numbers; on another processor they differ in the
last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kinprint.behaviour.black_box import NextToken
from kinprint.behaviour.cache import Cache
from kinprint.behaviour.loading import extra, load_module, load_tokenizer
from kinprint.canonical import digest
from kinprint.checkpoint import Checkpoint
from kinprint.errors import CheckpointError, KinprintError, UsageError
from kinprint.shapes import Float32, Int64

Array = np.ndarray[Any, np.dtype[Any]]
Tell = Callable[[str, int, int], None]
"""Called with what is done, how much of it is done, and of how much."""

VERSION = 1
"""Raised whenever the same model and probes would give other numbers; what is kept then expires."""


class NotFiniteError(KinprintError):
    """A model gives NaN or Inf, so no statistic on it means anything; methods then say not_applicable."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass over some texts gives, at the last token of each.

    Attributes:
        states: Outputs of every decoder block.
        logits: Of the next token.
    """

    states: Float32[Array, "L N D"]
    logits: Float32[Array, "N V"]


class Runner:
    """A model in memory. It is a :class:`kinprint.behaviour.black_box.BlackBox` too.

    Attributes:
        name: For people; never evidence.
        identity: Digest of weights, config, tokenizer, dtype and device.
        checkpoint: Where the weights came from.
    """

    def __init__(
        self,
        module: Any,  # noqa: ANN401 - a transformers model
        tokenizer: Any,  # noqa: ANN401 - a transformers tokenizer
        checkpoint: Checkpoint,
        *,
        identity: str,
        batch: int = 16,
        cache: Cache | None = None,
        tell: Tell | None = None,
    ) -> None:
        """Use :meth:`open`."""
        self._module, self._tokenizer = module, tokenizer
        self.checkpoint, self.identity = checkpoint, identity
        self.name = checkpoint.name
        self._batch = batch
        self._cache = cache or Cache(None)
        self._tell: Tell = tell or (lambda _what, _done, _total: None)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        batch: int = 16,
        cache: Cache | None = None,
        tell: Tell | None = None,
    ) -> Runner:
        """Load a model folder.

        Args:
            folder: Config, weights and tokenizer as transformers writes them.
            device: A device of torch.
            dtype: What weights and activations are held in.
            batch: Texts in one pass.
            cache: Where results are kept; nothing is kept without one.
            tell: Called as work goes on.

        Raises:
            CheckpointError: The folder holds no causal model that transformers can run, or no tokenizer.
            UsageError: No such folder, device or dtype.
            MissingExtraError: The [torch] extra is not installed.
        """
        if batch < 1:
            raise UsageError(f"batch is {batch}: give a number of texts, 1 or more")
        path = Path(folder)
        if not path.is_dir():
            raise UsageError(f"{folder}: is no folder; a model that is to be run must be a local one")
        tokenizer = load_tokenizer(path)
        module, checkpoint = load_module(path, device=device, dtype=dtype)
        files = sorted(one for one in path.iterdir() if one.suffix in (".json", ".model", ".txt"))
        small = [[one.name, digest(one.read_bytes().hex())] for one in files if "index" not in one.name]
        identity = digest([checkpoint.content_digest, small, dtype, device.split(":")[0]])
        return cls(module, tokenizer, checkpoint, identity=identity, batch=batch, cache=cache, tell=tell)

    def keeping(self, cache: Cache) -> Runner:
        """Return the same model, whose results are kept in another cache."""
        other = copy(self)
        other._cache = cache
        return other

    # -- sizes ----------------------------------------------------------------------------------------------------

    @cached_property
    def blocks(self) -> Sequence[Any]:
        """The decoder blocks: the longest list of modules that are of one kind."""
        torch = extra("torch")
        lists = [one for one in self._module.modules() if isinstance(one, torch.nn.ModuleList) and len(one)]
        depth = getattr(self._module.config.get_text_config(), "num_hidden_layers", None)
        fitting = [one for one in lists if len(one) == depth] or lists
        if not fitting:
            raise CheckpointError(f"{self.name}: no decoder blocks were found in it")
        return list(max(fitting, key=lambda one: sum(parameter.numel() for parameter in one.parameters())))

    @property
    def layers(self) -> int:
        """Number of decoder blocks."""
        return len(self.blocks)

    @cached_property
    def output_matrix(self) -> Float32[Array, "V D"]:
        """What logits are products with.

        Raises:
            CheckpointError: The model has no output matrix.
        """
        output = self._module.get_output_embeddings()
        if output is None:
            raise CheckpointError(f"{self.name}: has no output matrix")
        return output.weight.detach().float().cpu().numpy()

    @property
    def vocabulary_size(self) -> int:
        """Rows of the embedding."""
        return int(self._module.get_input_embeddings().weight.shape[0])

    @property
    def context(self) -> int | None:
        """Most tokens of a text, where the config says."""
        most = getattr(self._module.config.get_text_config(), "max_position_embeddings", None)
        return most if isinstance(most, int) and most > 0 else None

    # -- text -----------------------------------------------------------------------------------------------------

    def encode(self, texts: Sequence[str], *, room: int = 0) -> list[list[int]]:
        """Return the token ids of texts.

        Args:
            texts: Texts.
            room: Tokens that must fit behind each.

        Raises:
            CheckpointError: The tokenizer gives ids that the model has no embedding for, or no token at all.
            UsageError: A text is longer than the model's context.
        """
        found = [list(map(int, self._tokenizer(text)["input_ids"])) for text in texts]
        most, rows = self.context, self.vocabulary_size
        for text, ids in zip(texts, found, strict=True):
            if not ids:
                raise CheckpointError(
                    f"{self.name}: its tokenizer gives no token for {text[:40]!r}; it is not this model's"
                )
            if max(ids) >= rows or min(ids) < 0:
                raise CheckpointError(
                    f"{self.name}: its tokenizer gives id {max(ids)} and the model has {rows} embeddings;"
                    " the tokenizer is not this model's"
                )
            if most is not None and len(ids) + room > most:
                raise UsageError(
                    f"{self.name}: a probe has {len(ids)} tokens and {room} are to follow, its context {most};"
                    " use shorter probes"
                )
        return found

    def fits(self, text: str, *, room: int = 0) -> bool:
        """Return whether a text and so many tokens behind it fit into the context."""
        return self.context is None or len(self._tokenizer(text)["input_ids"]) + room <= self.context

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        return str(self._tokenizer.decode(list(ids)))

    def tokens_of(self, words: Sequence[str]) -> Int64[Array, " K"]:
        """Return the ids of all tokens that are one of some words, in any case and with a space before or not.

        Raises:
            UsageError: No token is.
        """
        wanted = set(words)
        found = [number for number, text in enumerate(self._token_texts) if text in wanted]
        if not found:
            raise UsageError(f"{self.name}: no token of its vocabulary is {' or '.join(words)}")
        return np.array(found, dtype=np.int64)

    @cached_property
    def _token_texts(self) -> list[str]:
        count = min(self.vocabulary_size, len(self._tokenizer))
        return [text.strip().lower() for text in self._tokenizer.batch_decode([[number] for number in range(count)])]

    # -- passes ---------------------------------------------------------------------------------------------------

    def run(self, texts: Sequence[str]) -> Pass:
        """Return states of every block and the next token's logits, at the last token of each text.

        Raises:
            NotFiniteError: One of them is NaN or Inf.
        """
        kept = self._cache.get(self._key("pass", list(texts)), lambda: self._run(self.encode(texts)))
        return self._finite(Pass(kept["states"], kept["logits"]))

    def run_ids(self, ids_NT: Int64[Array, "N T"]) -> Pass:
        """Return the same for token ids that no tokenizer made, such as random ones."""
        kept = self._cache.get(self._key("ids", ids_NT.tolist()), lambda: self._run(ids_NT.tolist()))
        return self._finite(Pass(kept["states"], kept["logits"]))

    def _finite(self, found: Pass) -> Pass:
        bad = int((~np.isfinite(found.logits).all(axis=1) | ~np.isfinite(found.states).all(axis=(0, 2))).sum())
        if bad:
            raise NotFiniteError(f"{self.name} gives NaN or Inf on {bad} of {len(found.logits)} probes")
        return found

    def _run(self, ids: Sequence[Sequence[int]]) -> dict[str, Array]:
        states: list[Array | None] = [None] * len(ids)
        logits: list[Array | None] = [None] * len(ids)
        for chosen, batch, last in self._batches(ids, "running probes"):
            with self._captured() as seen:
                output = self._module(**batch, use_cache=False)
            rows = extra("torch").arange(len(chosen), device=last.device)
            at_last = [hidden[rows, last].float().cpu().numpy() for hidden in seen]
            said = output.logits[rows, last].float().cpu().numpy()
            for place, number in enumerate(chosen):
                states[number] = np.stack([layer[place] for layer in at_last])
                logits[number] = said[place]
        return {"states": np.stack([one for one in states if one is not None], axis=1), "logits": np.stack(logits)}  # pyright: ignore[reportArgumentType, reportCallIssue]

    @contextmanager
    def _captured(self) -> Generator[list[Any]]:
        """Give a list that holds the output of every block once the module was called."""
        seen: list[Any] = []

        def hook(_module: object, _inputs: object, output: Any) -> None:  # noqa: ANN401
            seen.append(output[0] if isinstance(output, tuple) else output)

        handles = [block.register_forward_hook(hook) for block in self.blocks]
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()

    def _batches(self, ids: Sequence[Sequence[int]], what: str) -> Iterator[tuple[list[int], dict[str, Any], Any]]:
        """Yield numbers of texts, their padded ids with a mask, and the place of each one's last token."""
        torch = extra("torch")
        device = self._module.get_input_embeddings().weight.device
        order = sorted(range(len(ids)), key=lambda number: (len(ids[number]), number))
        with _steady(torch):
            for first in range(0, len(order), self._batch):
                self._tell(f"{what} of {self.name}", first, len(order))
                chosen = order[first : first + self._batch]
                longest = max(len(ids[number]) for number in chosen)
                padded = np.zeros((len(chosen), longest), dtype=np.int64)
                mask = np.zeros_like(padded)
                for row, number in enumerate(chosen):
                    padded[row, : len(ids[number])], mask[row, : len(ids[number])] = ids[number], 1
                batch = {
                    "input_ids": torch.from_numpy(padded).to(device),
                    "attention_mask": torch.from_numpy(mask).to(device),
                }
                yield chosen, batch, torch.from_numpy(mask.sum(axis=1) - 1).to(device)
        self._tell(f"{what} of {self.name}", len(order), len(order))

    def attention(self, ids_NT: Int64[Array, "N T"]) -> Iterator[Float32[Array, "N L H T T"]]:
        """Yield attention maps batch by batch, in the order of the texts, which are equally long.

        Raises:
            NotFiniteError: A map holds NaN or Inf.
            UsageError: The model keeps no attention maps.
        """
        torch = extra("torch")
        device = self._module.get_input_embeddings().weight.device
        with _steady(torch):
            for first in range(0, len(ids_NT), self._batch):
                self._tell(f"attention maps of {self.name}", first, len(ids_NT))
                part = torch.from_numpy(np.ascontiguousarray(ids_NT[first : first + self._batch])).to(device)
                maps = self._module(input_ids=part, use_cache=False, output_attentions=True).attentions
                maps = [one for one in maps or () if one is not None]
                if not maps:
                    raise UsageError(f"{self.name} keeps no attention maps")
                found = np.stack([one.float().cpu().numpy() for one in maps], axis=1)
                if not np.isfinite(found).all():
                    raise NotFiniteError(f"{self.name} gives attention maps with NaN or Inf")
                yield found

    def log_likelihoods(self, prompts: Sequence[str], continuations: Sequence[str]) -> Float32[Array, " N"]:
        """Return the mean natural log-probability of each continuation's tokens after its prompt.

        Raises:
            NotFiniteError: One of them is not finite.
        """
        made_of = self._key("likelihood", [list(prompts), list(continuations)])
        found = self._cache.get(made_of, lambda: {"values": self._log_likelihoods(prompts, continuations)})["values"]
        if not np.isfinite(found).all():
            raise NotFiniteError(f"{self.name} gives log-probabilities that are not finite")
        return found

    def _log_likelihoods(self, prompts: Sequence[str], continuations: Sequence[str]) -> Array:
        torch = extra("torch")
        whole = self.encode([prompt + rest for prompt, rest in zip(prompts, continuations, strict=True)])
        starts = [_shared(ids, own) for ids, own in zip(whole, self.encode(prompts), strict=True)]
        found = np.zeros(len(whole), dtype=np.float32)
        for chosen, batch, _ in self._batches(whole, "scoring answers"):
            scores = torch.log_softmax(self._module(**batch, use_cache=False).logits.float(), dim=-1)
            for row, number in enumerate(chosen):
                ids, start = whole[number], max(1, min(starts[number], len(whole[number]) - 1))
                at = torch.arange(start - 1, len(ids) - 1, device=scores.device)
                said = torch.tensor(ids[start:], device=scores.device)
                found[number] = float(scores[row, at, said].mean())
        return found

    # -- a black box ----------------------------------------------------------------------------------------------

    def next_tokens(self, prompts: Sequence[str], *, most: int = 20) -> list[NextToken]:
        """Return for each prompt the ``most`` likeliest next tokens with their log-probabilities."""
        logits = self.run(prompts).logits.astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        best = np.argsort(-logits, axis=1, kind="stable")[:, :most]
        return [
            NextToken(tuple((self.text([int(token)]), float(row[token])) for token in chosen))
            for row, chosen in zip(logits, best, strict=True)
        ]

    def answers(self, prompts: Sequence[str], *, most: int = 32) -> list[str]:
        """Return for each prompt the greedy continuation, of at most ``most`` tokens."""

        def make() -> Mapping[str, Array]:
            said = self._generate(self.encode(prompts, room=most), most)
            tokens = np.full((len(said), most), -1, dtype=np.int64)
            for row, ids in zip(tokens, said, strict=True):
                row[: len(ids)] = ids
            return {"tokens": tokens}

        tokens = self._cache.get(self._key("answers", [list(prompts), most]), make)["tokens"]
        return [self.text(row[row >= 0].tolist()) for row in tokens]

    def _generate(self, ids: Sequence[Sequence[int]], most: int) -> list[list[int]]:
        """Return greedy continuations. Prompts of one length go together, so that none is padded."""
        torch, transformers = extra("torch"), extra("transformers")
        device = self._module.get_input_embeddings().weight.device
        end = self._tokenizer.eos_token_id
        # Not the checkpoint's own settings, which may ask for sampling, penalties or beams.
        greedy = transformers.GenerationConfig(
            do_sample=False, num_beams=1, max_new_tokens=most, eos_token_id=end, pad_token_id=0 if end is None else end
        )
        found: list[list[int]] = [[] for _ in ids]
        by_length: dict[int, list[int]] = {}
        for number, one in enumerate(ids):
            by_length.setdefault(len(one), []).append(number)
        groups = [
            numbers[first : first + self._batch]
            for numbers in by_length.values()
            for first in range(0, len(numbers), self._batch)
        ]
        with _steady(torch):
            for done, numbers in enumerate(groups):
                self._tell(f"answers of {self.name}", done, len(groups))
                fed = torch.tensor([list(ids[number]) for number in numbers], device=device)
                said = self._module.generate(fed, attention_mask=torch.ones_like(fed), generation_config=greedy)
                for number, row in zip(numbers, said[:, fed.shape[1] :].tolist(), strict=True):
                    found[number] = row[: row.index(end)] if end in row else row
        self._tell(f"answers of {self.name}", len(groups), len(groups))
        return found

    def _key(self, kind: str, what: object) -> list[object]:
        return [kind, VERSION, self.identity, what]


def _shared(whole: Sequence[int], start: Sequence[int]) -> int:
    """Return how many tokens two texts begin with in common: a prompt's last token may merge with what follows."""
    count = 0
    for left, right in zip(whole, start, strict=False):
        if left != right:
            break
        count += 1
    return count


@contextmanager
def _steady(torch: Any) -> Generator[None]:  # noqa: ANN401
    """Run without gradients and with deterministic algorithms; put everything back after."""
    before = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        with torch.inference_mode():
            yield
    finally:
        torch.use_deterministic_algorithms(mode=before)
