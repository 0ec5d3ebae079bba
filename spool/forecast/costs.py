"""Formulas for what a training takes, before anything is learned from finished jobs: memory, disk, time.

Sources: sizes of weights and states follow from the formats (bf16 2 bytes; NF4 with double quantisation 4.127 bits,
QLoRA, arXiv 2305.14314, section 3; Adam's two moments 8 bytes, 8-bit Adam 2). What Unsloth keeps for the backward pass
was fitted to its peaks on an H100: Gemma 2B and 7B in 4 bit with checkpointing 3.08 and 6.94 GB, 2B in 16 bit without
it 35.5 GB for 16,384 tokens, 270M 0.72 and 0.87 GB, and 8.09 GB for 262,144 tokens. tests/test_forecast.py holds how
near it comes.
"""

import math
from dataclasses import dataclass, replace

from spool.forecast import exports
from spool.forecast.shapes import Shape, catalogue

LINEAR_BYTES = {"4bit": 4.127 / 8, "8bit": 1.01, "16bit": 2.0}
"""A weight of a layer; embeddings and norms stay in 16 bit."""
EXPERT_BYTES = {"4bit": 4.127 / 8, "8bit": 2.0, "16bit": 2.0}
"""An expert's weight. bitsandbytes makes modules smaller, and experts are none; in 4 bit Unsloth does it on a card."""

OPTIMIZER_BYTES = {"adamw_8bit": 2.0, "paged_adamw_8bit": 2.0, "adamw_torch": 8.0, "adafactor": 0.1}
"""States of one trained weight, in memory and in a checkpoint."""

ADAPTER_BYTES = 8
"""A trained weight and its gradient, each in 32 bit."""
PACKED_GRADIENT_BYTES = 4
"""Packed rows' gradients beside those that they are added to."""

KEPT_INNER, KEPT_HIDDEN = 2.2, 8.0
"""Activations of a token and layer that wait for the backward pass, in inner and hidden widths of 2 bytes."""
WORKING_INNER, WORKING_HIDDEN = 1.6, 16.0
"""What a token holds beside them while its layer is at work, in the same widths."""
RECOMPUTED_LAYERS = 1.5
"""Packed rows with checkpointing keep each layer's input, and while one is computed again what it keeps and some of its
gradients: 0.30 MB a token of Gemma 2B, 0.51 of 7B (bench/results/2026-11-23-h100-memory.json)."""
EXPERTS_WORKING = 5
"""Of what the router sends a token to, in hidden widths of 2 bytes: what experts answer and the same weighted, in
32 bit. Seen on tensors without data, not on a card."""
RECORDED_BYTES = 15_000_000_000
"""Of the longest CUDA graph: 6,350 tokens of Gemma 2B, which keep an H100 busy for longer than Python needs."""
PACKED_TWICE = 2
"""Packed rows are held once in what is recorded and once beside it, while that is recorded."""
PACKED_LOGITS_BYTES = 1 << 28
"""Of logits at once (runner/packed/loss.py)."""
LOGITS_MOST_BYTES = 280_000_000
"""Unsloth computes the loss in chunks: the logits of a batch are never all there."""

STREAMS = 37
"""Gemma 3n has four streams of its hidden width in 32 bit, which each layer predicts, corrects and keeps."""
SHORTEST = 64
"""Tokens of the shortest CUDA graph."""
PACKED_LONG_ROWS = 0.7
"""LONG_ROWS where rows are packed, times the logarithm of the number of batches: 100 and 1,200 were seen."""
LONG_ROWS = 2.1
"""How far the largest batch goes beyond the mean, in mean rows and square roots of the batch: of log-normal lengths."""

CONTEXT_BYTES = 1_400_000_000
"""CUDA's context, compiled kernels and the allocator's slack: seen from outside (NVML) beside torch's own peak."""
LIBRARIES_BYTES, LIBRARIES_GPU_BYTES = 950_000_000, 2_400_000_000
"""Resident memory of a trainer before any weight, on a CPU and beside a card."""

TOKENIZER_BYTES = 34_000_000
EXPORT_TOKENIZER_BYTES = 21_000_000
CHECKPOINTS_AT_ONCE = 4
"""Two are kept, and the best; the next is written before one of them goes."""
ROW_TOKEN_BYTES = 8

H100_FLOPS = 150e12
"""What of the card's rate short rows reach."""
LAYER_S = 0.010
"""A layer's forward and backward pass however few tokens: starting kernels takes so long."""
CORE_FLOPS = 105e9
PACKED_FLOPS = 365e12
"""The same where rows are packed: 36,500 tokens/s of Gemma 2B (bench/results/2026-11-23-h100-plan.json)."""
PACKED_SLOWER = 1.1
"""A base in 4 bit: each matrix is unpacked in each pass."""
PACKED_STEP_S = 0.010
"""What each step has beside that: optimizer, logging."""
CPU_BATCH_S = 0.15
UNKNOWN_SPEED = 0.2
EVALUATION_SHARE = 1 / 3
"""Of a training token's time: no backward pass."""

LOAD_S, LOAD_GPU_S, COMPILE_S = 18.0, 45.0, 150.0
"""Libraries, base and exports; on a card also its kernels, with the empty caches of a first job."""
PACKED_COMPILE_S = 40.0
"""Kernels and CUDA graphs where rows are packed."""
LOAD_BYTES_PER_S = 400e6
MERGE_BYTES_PER_S = 150e6


@dataclass(frozen=True)
class Plan:
    """A training with every `auto` decided. Tokens are of a row, as it is cut; `longest` is the longest one's."""

    steps: int
    batch: int
    accumulation: int
    mean_tokens: float
    longest_tokens: float
    rank: int
    modules: str | list[str]
    precision: str
    checkpointing: bool
    optimizer: str
    on_gpu: bool
    train_rows: int = 0
    eval_rows: int = 0
    evaluations: int = 0
    exports: tuple[str, ...] = ()
    """The formats that are made at the end."""
    report_s: float = 0.0
    """What the report at the end takes."""
    packing: bool = False
    room_tokens: float = math.inf
    """Of packed rows at once; more come in parts."""

    @property
    def merged(self) -> bool:
        """Whether base and adapter are merged for some of them."""
        return exports.disk_bytes(self.exports, 1) > 0

    @property
    def batch_tokens(self) -> float:
        """Of one batch on average."""
        return self.batch * self.mean_tokens

    @property
    def peak_tokens(self) -> float:
        """Of the largest batch: rows lie one behind the other without padding, and long ones seldom come together."""
        long_rows = PACKED_LONG_ROWS * math.log(max(2, self.steps * self.accumulation)) if self.packing else LONG_ROWS
        beyond = min(self.longest_tokens - self.mean_tokens, long_rows * self.mean_tokens)
        batch = self.batch * self.mean_tokens + math.sqrt(self.batch) * max(0.0, beyond)
        return min(rounded(math.ceil(batch)), max(self.room_tokens, self.longest_tokens)) if self.packing else batch

    def with_batch(self, batch: int) -> "Plan":
        """The same effective batch in parts."""
        return replace(self, batch=batch, accumulation=self.batch * self.accumulation // batch)


def weights_bytes(shape: Shape, precision: str, on_gpu: bool = True) -> float:
    rest = max(0, shape.parameters - shape.linear_parameters - shape.expert_parameters)
    experts = shape.expert_parameters * EXPERT_BYTES[precision if on_gpu else "16bit"]
    return shape.linear_parameters * LINEAR_BYTES[precision] + experts + rest * 2


def unpacked_bytes(shape: Shape, precision: str) -> float:
    """The largest matrix of a layer, which is there in 16 bit while it is multiplied; of experts all of a layer's."""
    experts = shape.expert_parameters / shape.layers if EXPERT_BYTES[precision] < 2 else 0
    return 0 if precision == "16bit" else 2 * max(experts, shape.hidden * shape.inner)


def trained_bytes(shape: Shape, plan: Plan) -> float:
    """The adapter with its gradients and the optimizer's states."""
    a_weight = ADAPTER_BYTES + OPTIMIZER_BYTES[plan.optimizer] + (PACKED_GRADIENT_BYTES if plan.packing else 0)
    return shape.lora_parameters(plan.rank, plan.modules) * a_weight


def activation_bytes(shape: Shape, plan: Plan) -> float:
    if plan.packing:
        return plan.peak_tokens * packed_token_bytes(shape, plan.checkpointing)
    kept = 2 * shape.layers * (KEPT_INNER * shape.inner + KEPT_HIDDEN * shape.hidden + _experts_layer(shape))
    a_token = 2 * (WORKING_INNER * shape.inner + WORKING_HIDDEN * shape.hidden)
    a_token += 2 * _experts_layer(shape) + working_bytes(shape)
    return plan.peak_tokens * (a_token + (0 if plan.checkpointing else kept))


def packed_token_bytes(shape: Shape, checkpointing: bool = False) -> float:
    """What a token of packed rows keeps for the backward pass, by what each layer's parts keep: within 1 % of the
    270M's, 1B's and 2B's on an H100."""
    a_layer = 2 * _packed_layer(shape)
    inputs = 2 * shape.layers * shape.hidden
    kept = inputs + RECOMPUTED_LAYERS * a_layer if checkpointing else shape.layers * a_layer
    return kept + working_bytes(shape)


def _packed_layer(shape: Shape) -> float:
    """In numbers of 16 bit. Matrices keep their inputs (three of the inner width, two of the hidden one, one from the
    heads), attention its own, and a norm its input in 32 bit."""
    older = shape.kind in ("gemma", "gemma2")
    hidden = 2 + 2 * (2 if shape.kind == "gemma" else 4)
    if shape.kind.startswith("gemma3n"):
        hidden += STREAMS
    heads = 2 * shape.heads + 2 * shape.kv_heads
    if not older:  # norms of queries and keys, and of values too
        heads += 2 * (shape.heads + shape.kv_heads * (2 if shape.kind.startswith(("gemma3n", "gemma4")) else 1))
    return 3 * shape.inner + hidden * shape.hidden + heads * shape.head_dim + _experts_layer(shape)


def _experts_layer(shape: Shape) -> float:
    """Of the experts that a token is sent to: gate, its activation, up, and the answer, which the router's weight
    multiplies. Beside them four more norms."""
    if not shape.experts:
        return 0
    return shape.experts_at_once * (shape.hidden + 3 * shape.expert_inner) + 4 * 2 * shape.hidden


def working_bytes(shape: Shape) -> float:
    """What a token holds with experts beside that while one layer is at work."""
    return EXPERTS_WORKING * 2 * shape.experts_at_once * shape.hidden


def rounded(tokens: int) -> int:
    """The next of a few lengths, four in each octave: a CUDA graph has one length, and each takes a while to record.
    A row that is filled up so is a tenth longer on average."""
    step = max(SHORTEST, 1 << max(0, tokens.bit_length() - 3))
    return -(-tokens // step) * step


def room_tokens(
    shape: Shape,
    rank: int,
    modules: str | list[str],
    free_bytes: float,
    precision: str = "16bit",
    checkpointing: bool = False,
    optimizer: str = "adamw_torch",
) -> float:
    """Tokens of packed rows that a card with so much free memory trains on at once."""
    a_weight = ADAPTER_BYTES + PACKED_GRADIENT_BYTES + OPTIMIZER_BYTES[optimizer]
    adapter = shape.lora_parameters(rank, modules) * a_weight
    fixed = weights_bytes(shape, precision) + unpacked_bytes(shape, precision) + adapter + PACKED_LOGITS_BYTES
    return max(0.0, (0.9 * free_bytes - fixed) / (PACKED_TWICE * packed_token_bytes(shape, checkpointing)))


def peak_bytes(shape: Shape, plan: Plan) -> float:
    """What a trainer allocates at most: on a card what torch counts, on a CPU its resident memory."""
    logits = plan.peak_tokens * shape.vocabulary * 2
    weights = weights_bytes(shape, plan.precision, plan.on_gpu)
    found = weights + trained_bytes(shape, plan) + activation_bytes(shape, plan)
    if not plan.on_gpu:
        wider = weights if plan.packing else 0  # 32 bit
        return LIBRARIES_BYTES + found + wider + 2 * logits
    return (
        found
        + unpacked_bytes(shape, plan.precision)
        + (PACKED_LOGITS_BYTES if plan.packing else min(logits, LOGITS_MOST_BYTES))
    )


def checkpoint_bytes(shape: Shape, plan: Plan) -> float:
    adapter = shape.lora_parameters(plan.rank, plan.modules)
    return adapter * (4 + OPTIMIZER_BYTES[plan.optimizer]) + TOKENIZER_BYTES


def disk_bytes(shape: Shape, plan: Plan, saves: int) -> float:
    """What a job leaves at its fullest moment: checkpoints, tokenised rows, exports."""
    kept = min(CHECKPOINTS_AT_ONCE, saves) * checkpoint_bytes(shape, plan)
    rows = (plan.train_rows + plan.eval_rows) * plan.mean_tokens * ROW_TOKEN_BYTES
    adapter = shape.lora_parameters(plan.rank, plan.modules) * 4 + EXPORT_TOKENIZER_BYTES
    made = exports.disk_bytes(plan.exports, shape.parameters * 2)
    return kept + rows + adapter + made + (EXPORT_TOKENIZER_BYTES if plan.merged else 0)


def flops_a_token(shape: Shape, plan: Plan) -> float:
    """Forward and the gradient of activations, 2 operations a weight each; once more forward with checkpointing.

    The frozen weights need no gradient of their own.
    """
    weights = shape.multiplied_parameters + shape.vocabulary * shape.hidden
    return (6 if plan.checkpointing else 4) * weights


def step_s(shape: Shape, plan: Plan, device: str, cores: int) -> float:
    """Seconds of one step: each batch has a fixed part and one by its tokens."""
    work = plan.batch_tokens * flops_a_token(shape, plan)
    if not plan.on_gpu:
        batch_s = CPU_BATCH_S + work / (CORE_FLOPS * min(cores, 32))
    elif plan.packing:
        slower = PACKED_SLOWER if plan.precision != "16bit" else 1.0
        batch_s = PACKED_STEP_S + slower * work / (PACKED_FLOPS * speed(device))
    else:
        slower = 1.1 if plan.precision != "16bit" else 1.0
        batch_s = shape.layers * LAYER_S * slower + work / (H100_FLOPS * speed(device))
    return plan.accumulation * batch_s


def evaluations_s(shape: Shape, plan: Plan, device: str, cores: int) -> float:
    """Seconds of all evaluations together."""
    if not plan.evaluations or not plan.eval_rows:
        return 0.0
    batches = plan.eval_rows / plan.batch
    return plan.evaluations * batches * EVALUATION_SHARE * step_s(shape, plan, device, cores) / plan.accumulation


def overhead_s(shape: Shape, plan: Plan) -> float:
    """Seconds beside steps and evaluations: loading, compiling, saving, exporting, the report."""
    weights = shape.parameters * 2
    compiling = PACKED_COMPILE_S if plan.packing else COMPILE_S
    fixed = LOAD_GPU_S + compiling if plan.on_gpu else LOAD_S
    merging = weights / MERGE_BYTES_PER_S if plan.merged else 0
    return fixed + weights / LOAD_BYTES_PER_S + merging + plan.report_s


def speed(device: str) -> float:
    """How fast a card is, an H100 being 1."""
    known: dict[str, float] = catalogue()["speed"]
    key = max((name for name in known if name.lower() in device.lower()), key=len, default=None)
    return known[key] if key else UNKNOWN_SPEED
