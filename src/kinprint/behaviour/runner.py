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
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from kinprint.behaviour.black_box import NextToken
from kinprint.behaviour.cache import Cache
from kinprint.behaviour.loading import extra, load_module, load_tokenizer
from kinprint.canonical import digest
from kinprint.checkpoint import Checkpoint
from kinprint.errors import CheckpointError, KinprintError, UsageError
from kinprint.shapes import Bool, Float32, Float64, Int64

Array = np.ndarray[Any, np.dtype[Any]]
Tell = Callable[[str, int, int], None]
"""Called with what is done, how much of it is done, and of how much."""

VERSION = 2

_WORTH_SHARING = 8
"""Tokens that the texts of a group must share for a pass of its own over them."""
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
        self._check(np.asarray(np.isfinite(found.logits).all(axis=1) & np.isfinite(found.states).all(axis=(0, 2))))
        return found

    def _check(self, finite_N: Bool[Array, " N"]) -> None:
        if not finite_N.all():
            raise NotFiniteError(f"{self.name} gives NaN or Inf on {int((~finite_N).sum())} of {len(finite_N)} probes")

    def _run(self, ids: Sequence[Sequence[int]]) -> dict[str, Array]:
        states: list[Array | None] = [None] * len(ids)
        logits: list[Array | None] = [None] * len(ids)
        for chosen, batch, last in self._batches(ids, "running probes"):
            with self._captured() as seen:
                said = self._last_logits(batch, last)
            rows = extra("torch").arange(len(chosen), device=last.device)
            at_last = [hidden[rows, last].float().cpu().numpy() for hidden in seen]
            for place, number in enumerate(chosen):
                states[number] = np.stack([layer[place] for layer in at_last])
                logits[number] = said[place]
        return {"states": np.stack([one for one in states if one is not None], axis=1), "logits": np.stack(logits)}  # pyright: ignore[reportArgumentType, reportCallIssue]

    def _last_logits(self, batch: Mapping[str, Any], last: Any, *, use_cache: bool = False) -> Array:  # noqa: ANN401
        """Return logits at the last token of each text, and make no others where the model can be told so."""
        torch = extra("torch")
        places, which = torch.unique(last, return_inverse=True)
        if self._told_places:
            logits = self._module(**batch, use_cache=use_cache, logits_to_keep=places).logits
        else:
            logits = self._module(**batch, use_cache=use_cache).logits[:, places]
        return logits[torch.arange(len(last), device=last.device), which].float().cpu().numpy()

    @cached_property
    def _told_places(self) -> bool:
        """Whether the model can be told at which tokens logits are wanted: of a large vocabulary they cost most."""
        return "logits_to_keep" in signature(self._module.forward).parameters

    @cached_property
    def _cache_name(self) -> str:
        """Keys and values of what was read go by another name from some version of transformers on."""
        return "cache" if "cache" in signature(self._module.forward).parameters else "past_key_values"

    def log_masses(self, groups: Sequence[Sequence[str]], words: Sequence[Sequence[str]]) -> Float64[Array, "N Q W"]:
        """Return for each text the logarithm of the unnormalised mass of next tokens that are one of some words.

        Args:
            groups: As many texts in each; those of one group begin alike, and what they share is read once.
            words: Sets of words.

        Raises:
            NotFiniteError: A logit is NaN or Inf.
            UsageError: No token of the vocabulary is one of them.
        """

        def make() -> Mapping[str, Array]:
            ids, sets = self.encode([text for group in groups for text in group]), list(map(self.tokens_of, words))
            found = np.empty((len(ids), len(sets)))
            for chosen, logits in self._of_groups(ids, len(groups[0])) or self._of_each(ids):
                logits = logits.astype(np.float64)
                held = [np.logaddexp.reduce(logits[:, one], axis=1) for one in sets]
                # One place that is not finite spoils the row, as it does where states are kept.
                finite_N = np.asarray(np.isfinite(logits).all(axis=1))
                found[chosen] = np.where(finite_N[:, None], np.stack(held, axis=1), np.nan)
            return {"masses": found.reshape(len(groups), -1, len(sets))}

        made_of = self._key("masses", [list(map(list, groups)), list(map(list, words))])
        masses = self._cache.get(made_of, make)["masses"]
        self._check(np.asarray(np.isfinite(masses).all(axis=(1, 2))))
        return masses

    def _of_each(self, ids: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Array]]:
        """Yield numbers of texts and the logits at their last tokens."""
        for chosen, batch, last in self._batches(ids, "asking questions"):
            yield chosen, self._last_logits(batch, last)

    def _of_groups(self, ids: Sequence[Sequence[int]], size: int) -> Iterator[tuple[list[int], Array]] | None:
        """Return the same, read from where the texts of a group part; None where that saves nothing or cannot be."""
        starts = [
            min(_shared(ids[first], one) for one in ids[first + 1 : first + size]) if size > 1 else 0
            for first in range(0, len(ids), size)
        ]
        starts = [
            min(start, *(len(one) - 1 for one in ids[at * size : (at + 1) * size])) for at, start in enumerate(starts)
        ]
        if min(starts) < _WORTH_SHARING or not self._told_places:
            return None
        torch, transformers = extra("torch"), extra("transformers")
        with _steady(torch):
            kept = self._module(input_ids=torch.tensor([ids[0][:1]], device=self._device), use_cache=True)
        # Other kinds, such as those of recurrent blocks, cannot be handed to several texts.
        if type(getattr(kept, self._cache_name, None)) is not transformers.DynamicCache:
            return None
        return self._shared_reading(ids, size, starts)

    def _shared_reading(
        self, ids: Sequence[Sequence[int]], size: int, starts: Sequence[int]
    ) -> Iterator[tuple[list[int], Array]]:
        torch = extra("torch")
        with _steady(torch):
            for group, start in enumerate(starts):
                self._tell(f"asking questions of {self.name}", group * size, len(ids))
                chosen = list(range(group * size, (group + 1) * size))
                beginning = torch.tensor([ids[chosen[0]][:start]], device=self._device)
                past = self._module(input_ids=beginning, use_cache=True, logits_to_keep=1)
                past = getattr(past, self._cache_name)
                past.batch_repeat_interleave(size)
                batch, last = self._padded([ids[number][start:] for number in chosen])
                seen = torch.ones((size, start), dtype=torch.int64, device=self._device)
                batch["attention_mask"] = torch.cat([seen, batch["attention_mask"]], dim=1)
                yield chosen, self._last_logits({**batch, self._cache_name: past}, last, use_cache=True)
        self._tell(f"asking questions of {self.name}", len(ids), len(ids))

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
        order = sorted(range(len(ids)), key=lambda number: (len(ids[number]), number))
        with _steady(extra("torch")):
            for first in range(0, len(order), self._batch):
                self._tell(f"{what} of {self.name}", first, len(order))
                chosen = order[first : first + self._batch]
                yield chosen, *self._padded([ids[number] for number in chosen])
        self._tell(f"{what} of {self.name}", len(order), len(order))

    def _padded(self, ids: Sequence[Sequence[int]]) -> tuple[dict[str, Any], Any]:
        """Return ids in one rectangle with a mask, and the place of each text's last token."""
        torch = extra("torch")
        padded = np.zeros((len(ids), max(map(len, ids))), dtype=np.int64)
        mask = np.zeros_like(padded)
        for row, one in enumerate(ids):
            padded[row, : len(one)], mask[row, : len(one)] = one, 1
        batch = {"input_ids": padded, "attention_mask": mask}
        made = {name: torch.from_numpy(array).to(self._device) for name, array in batch.items()}
        return made, torch.from_numpy(mask.sum(axis=1) - 1).to(self._device)

    @property
    def _device(self) -> Any:  # noqa: ANN401 - a torch device
        return self._module.get_input_embeddings().weight.device

    def attention(self, ids_NT: Int64[Array, "N T"]) -> Iterator[Float32[Array, "N L H T T"]]:
        """Yield attention maps batch by batch, in the order of the texts, which are equally long.

        Raises:
            NotFiniteError: A map holds NaN or Inf.
            UsageError: The model keeps no attention maps.
        """
        torch = extra("torch")
        with _steady(torch):
            for first in range(0, len(ids_NT), self._batch):
                self._tell(f"attention maps of {self.name}", first, len(ids_NT))
                part = torch.from_numpy(np.ascontiguousarray(ids_NT[first : first + self._batch])).to(self._device)
                few = {"logits_to_keep": 1} if self._told_places else {}
                maps = self._module(input_ids=part, use_cache=False, output_attentions=True, **few).attentions
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
        firsts = [max(1, min(start, len(ids) - 1)) for start, ids in zip(starts, whole, strict=True)]
        for chosen, batch, last in self._batches(whole, "scoring answers"):
            places = torch.arange(min(firsts[number] for number in chosen) - 1, int(last.max()), device=last.device)
            if self._told_places:
                logits = self._module(**batch, use_cache=False, logits_to_keep=places).logits
            else:
                logits = self._module(**batch, use_cache=False).logits[:, places]
            for row, number in enumerate(chosen):
                said = torch.tensor(whole[number][firsts[number] :], device=logits.device)
                begin = firsts[number] - 1 - int(places[0])
                scores = torch.log_softmax(logits[row, begin : begin + len(said)].float(), dim=-1)
                found[number] = float(scores[torch.arange(len(said), device=logits.device), said].mean())
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
        """Return greedy continuations.

        Shorter prompts are padded on their left where the model can be told places, which leaves what it says as it
        is; elsewhere prompts of one length go together. One pass for each token reads all weights, so that few large
        batches take a fraction of the time of many small ones.
        """
        torch, transformers = extra("torch"), extra("transformers")
        end = self._tokenizer.eos_token_id
        # Not the checkpoint's own settings, which may ask for sampling, penalties or beams.
        greedy = transformers.GenerationConfig(
            do_sample=False, num_beams=1, max_new_tokens=most, eos_token_id=end, pad_token_id=0 if end is None else end
        )
        found: list[list[int]] = [[] for _ in ids]
        padded = "position_ids" in signature(self._module.forward).parameters
        together: dict[int, list[int]] = {}
        for number in sorted(range(len(ids)), key=lambda number: len(ids[number])):
            together.setdefault(0 if padded else len(ids[number]), []).append(number)
        groups = [
            numbers[first : first + self._batch]
            for numbers in together.values()
            for first in range(0, len(numbers), self._batch)
        ]
        with _steady(torch):
            for done, numbers in enumerate(groups):
                self._tell(f"answers of {self.name}", done, len(groups))
                longest = max(len(ids[number]) for number in numbers)
                rows = [[0] * (longest - len(ids[number])) + list(ids[number]) for number in numbers]
                mask = [[0] * (longest - len(ids[number])) + [1] * len(ids[number]) for number in numbers]
                fed, seen = (torch.tensor(one, device=self._device) for one in (rows, mask))
                said = self._module.generate(fed, attention_mask=seen, generation_config=greedy)
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
