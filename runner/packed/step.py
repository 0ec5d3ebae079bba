"""Forward and backward pass of packed rows: on a GPU recorded once for each length and replayed, where that pays."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from runner.packed.batch import Packed, Rows, Size, pack
from runner.packed.lean import make_lean
from runner.packed.loss import linear_cross_entropy
from runner.randomness import random_state, restore


@dataclass
class Recorded:
    """A CUDA graph with the memory that it reads its rows from and writes its loss to."""

    graph: torch.cuda.CUDAGraph
    packed: Packed
    scale: torch.Tensor
    loss: torch.Tensor


class Step:
    """Adds the gradients of rows to those of the adapter, which lie behind each other in one tensor.

    Args:
        model: a PeftModel whose base attends with `runner.packed.attention`; it stays where it is.
        most_rows: that a batch has.
        longest: tokens of the longest row.
        most_tokens: as many are on the card at once; more come in parts.
        most_recorded: tokens that are recorded as a CUDA graph; more keep a card busy by themselves.
        note: is told, in words, what people should know of.
    """

    def __init__(
        self,
        model: Any,
        most_rows: int,
        longest: int,
        most_tokens: float,
        most_recorded: float,
        note: Callable[[str], None] = lambda words: None,
    ) -> None:
        core = model.get_base_model()
        self.text, self.output = core.get_decoder(), core.get_output_embeddings()
        self.softcap = getattr(core.config.get_text_config(), "final_logit_softcapping", None)
        self.device = model.device
        self.on_gpu = self.device.type == "cuda"
        self.most_rows, self.longest, self.note = most_rows, longest, note
        self.most_tokens, self.most_recorded = most_tokens, most_recorded
        self.parameters = [each for each in model.parameters() if each.requires_grad]
        sizes = [each.numel() for each in self.parameters]
        self.gradients = torch.zeros(sum(sizes), device=self.device)
        for each, gradient in zip(self.parameters, self.gradients.split(sizes), strict=True):
            each.grad = gradient.view_as(each)
        self.recorded: dict[Size, Recorded] = {}
        if self.on_gpu:
            self.pool = torch.cuda.graph_pool_handle()
        make_lean(model)

    def recompute(self) -> None:
        """Has the backward pass compute each layer's activations again (arXiv 1604.06174), of which none are kept.

        Dropout must draw the same again, and to set a generator back cannot be recorded.
        """
        draws = any(isinstance(each, torch.nn.Dropout) and each.p > 0 for each in self.text.modules())
        self.text.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": draws})
        self.text.train()  # only there it is done
        self.text.disable_input_require_grads()  # only the other kind of checkpoint needs them
        if draws:
            self.most_recorded = 0

    def learn(self, rows: Rows, trained_tokens: int) -> torch.Tensor:
        """Adds the gradients of the rows' losses over `trained_tokens`, those of the whole step; gives that loss.

        Where memory runs out the same rows come in smaller parts, from then on: what is learned stays the same.

        Raises:
            torch.OutOfMemoryError: there is no room for one row.
        """
        return self._in_parts(rows, lambda part: self._part(part, trained_tokens))

    def loss(self, rows: Rows) -> torch.Tensor:
        """The mean loss of the rows' trained tokens; nothing is learned from it. Raises what `learn` raises."""
        scale = self._scale(rows.trained_tokens)
        with torch.no_grad():
            return self._in_parts(rows, lambda part: self._loss(pack(part).to(self.device), scale, self.longest))

    def _in_parts(self, rows: Rows, compute: Callable[[Rows], torch.Tensor]) -> torch.Tensor:
        """The sum of what is computed of as many rows at once as there is room for."""
        total = torch.zeros((), device=self.device)
        while len(rows):
            part = next(rows.parts(self.most_tokens))
            try:
                total += compute(part)
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
                full = True
            else:
                full = False
            if full:  # outside of the handler, which holds on to what was computed
                self._make_room(part.tokens)
            else:
                rows = rows.behind(len(part))
        return total

    def _part(self, rows: Rows, trained_tokens: int) -> torch.Tensor:
        """A part that does not come to its end has added nothing."""
        recorded = self.on_gpu and rows.tokens <= self.most_recorded
        return self._replayed(rows, trained_tokens) if recorded else self._computed(rows, trained_tokens)

    def _make_room(self, tokens: int) -> None:
        self.recorded.clear()
        self.most_tokens = tokens / 2
        if self.on_gpu:
            self.pool = torch.cuda.graph_pool_handle()
            torch.cuda.empty_cache()
        words = f"the memory ran out with {tokens:,} tokens at once: from now on there are at most"
        self.note(f"{words} {int(self.most_tokens):,}. What is learned stays the same.")

    def forget(self) -> None:
        """Puts the gradients back to 0: the next step begins."""
        self.gradients.zero_()

    def _scale(self, trained_tokens: int) -> torch.Tensor:
        return torch.tensor(1.0 / max(1, trained_tokens), device=self.device)

    def _loss(self, packed: Packed, scale: torch.Tensor, longest: int) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.on_gpu):
            out = self.text(
                input_ids=packed.input_ids,
                position_ids=packed.position_ids,
                use_cache=False,
                starts=packed.starts,
                longest=longest,
            )
            hidden = out.last_hidden_state[0].index_select(0, packed.places).to(self.output.weight.dtype)
            return linear_cross_entropy(hidden, self.output.weight, packed.targets, scale, self.softcap)

    def _derived(self, packed: Packed, scale: torch.Tensor, longest: int) -> tuple[torch.Tensor, Any]:
        """(loss, gradients)"""
        loss = self._loss(packed, scale, longest)
        return loss.detach(), torch.autograd.grad(loss, self.parameters)

    def _computed(self, rows: Rows, trained_tokens: int) -> torch.Tensor:
        packed, scale = pack(rows).to(self.device), self._scale(trained_tokens)
        loss, found = self._derived(packed, scale, self.longest)
        torch._foreach_add_([each.grad for each in self.parameters], found)
        return loss

    def _replayed(self, rows: Rows, trained_tokens: int) -> torch.Tensor:
        size = Size.of(rows, self.most_rows, self.longest)
        packed = pack(rows, size)
        recorded = self.recorded.get(size) or self._record(size, packed)
        for memory, new in zip(recorded.packed.tensors(), packed.tensors(), strict=True):
            memory.copy_(new.pin_memory(), non_blocking=True)
        recorded.scale.fill_(1.0 / max(1, trained_tokens))
        recorded.graph.replay()
        return recorded.loss

    def _record(self, size: Size, packed: Packed) -> Recorded:
        """Records what `size` takes. Before that it runs once without being recorded, as kernels that are compiled or
        chosen at their first run must be; what that drew of random numbers is drawn again."""
        here, scale, random = packed.to(self.device), self._scale(1), random_state()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._derived(here, scale, size.longest)
        torch.cuda.current_stream().wait_stream(stream)
        restore(random)
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, pool=self.pool):
                loss, found = self._derived(here, scale, size.longest)
                torch._foreach_add_([each.grad for each in self.parameters], found)
                del found
        except RuntimeError as error:
            torch.cuda.set_stream(before)  # a recording that cannot be ended leaves its own
            if memory_ran_out(error):
                raise torch.OutOfMemoryError(str(error)) from None
            raise
        self.recorded[size] = Recorded(graph, here, scale, loss)
        return self.recorded[size]


OUT_OF_MEMORY, CAPTURE_INVALIDATED = 2, 901
"""cudaError_t"""


def memory_ran_out(error: BaseException) -> bool:
    """Whether that is what an error began with: the end of a recording that it broke off fails with one of its own."""
    while below := error.__cause__ or error.__context__:
        error = below
    codes = OUT_OF_MEMORY, CAPTURE_INVALIDATED
    return isinstance(error, torch.OutOfMemoryError) or getattr(error, "error_code", None) in codes
