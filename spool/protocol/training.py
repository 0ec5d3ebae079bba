"""The settings of a training, group by group: each with its type, bounds, default and the text that forms show."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Auto = Literal["auto"]
Name = Annotated[str, Field(min_length=1, max_length=120)]
Reference = Annotated[str, Field(min_length=1, max_length=1024)]
Prompt = Annotated[str, Field(min_length=1, max_length=8192)]


class Group(BaseModel):
    """Closed and strict: an unknown field is an error, "3" is not 3, NaN is not a number."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True, frozen=True
    )


LINEAR_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""What "all-linear" means in a Gemma."""


class Lora(Group):
    rank: Annotated[int, Field(ge=1, le=512)] = 16
    """Size of the adapter (LoRA rank). Higher learns more detail and takes more memory; 8 to 64 suits most data."""

    alpha: Annotated[float, Field(gt=0, le=2048)] = 16
    """Strength of the adapter: what it adds is scaled by alpha / rank. Equal to the rank, or twice it, is usual."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0
    """Share of adapter inputs that are zeroed while training. 0 is fastest; 0.05 can help on small data."""

    target_modules: Literal["all-linear"] | Annotated[list[Name], Field(min_length=1, max_length=64)] = "all-linear"
    """Which layers get an adapter: "all-linear" (best quality), or names such as ["q_proj", "v_proj"]."""

    rslora: bool = False
    """Rank-stabilised LoRA (arXiv 2312.03732): scales by alpha / sqrt(rank). Worth it for ranks of 64 and more."""


class Train(Group):
    epochs: Annotated[float, Field(gt=0, le=1000)] = 3
    """How often the training rows are seen. More than 5 mostly learns the rows by heart."""

    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Stop after this many steps, whatever `epochs` says."""

    effective_batch: Annotated[int, Field(ge=1, le=4096)] = 8
    """Rows that each step learns from. It is batch_size times gradient_accumulation."""

    batch_size: Auto | Annotated[int, Field(ge=1, le=4096)] = "auto"
    """Rows on the card at once. Larger is faster and needs more memory; the result is the same."""

    gradient_accumulation: Auto | Annotated[int, Field(ge=1, le=4096)] = "auto"
    """How many batches make one step. Given together with batch_size, their product sets effective_batch."""

    learning_rate: Auto | Annotated[float, Field(gt=0, le=1)] = "auto"
    """How large each step is. auto: 2e-4, and 5e-4 for models of fewer than one billion parameters."""

    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    """How the learning rate falls over the run. cosine suits nearly everything."""

    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.03
    """Share of the steps over which the learning rate rises from 0."""

    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Pulls the adapter's weights towards 0 at each step, against overfitting."""

    optimizer: Literal["auto", "adamw_8bit", "adamw_torch", "paged_adamw_8bit", "adafactor"] = "auto"
    """auto: AdamW where rows are packed and on a CPU; 8-bit AdamW where they are not, or where it makes them fit."""

    gradient_checkpointing: Auto | bool = "auto"
    """Computes activations twice to save memory. auto: on a GPU where rows are not packed (Unsloth's own), or packed
    rows have too little room without; off on a CPU."""

    packing: Auto | bool = "auto"
    """Rows lie one behind the other without padding and never see each other; on a GPU each step is replayed as a CUDA
    graph. What is learned is the same. It goes with a base in 16 or 4 bit. auto: wherever it can be, on a GPU of Ampere
    or newer; off on a CPU."""

    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 42
    """Fixes the adapter's first weights, the order of the rows and dropout."""

    logging_steps: Annotated[int, Field(ge=1, le=10_000)] = 1
    """One row of metrics each so many steps."""

    save_steps: Auto | Annotated[int, Field(ge=1, le=10_000_000)] = "auto"
    """A checkpoint each so many steps. auto: a tenth of the run, between 10 and 500 steps."""


Droppable = Literal[
    "duplicate",
    "near_duplicate",
    "conflicting_answers",
    "over_long",
    "extreme_length",
    "secret",
    "personal_data",
    "refusal",
    "boilerplate",
    "lost_characters",
]


class Data(Group):
    format: Literal[
        "auto", "alpaca", "prompt_completion", "question_answer", "sharegpt", "messages", "text", "preference", "label"
    ] = "auto"
    """How a row is laid out. auto recognises it by its columns; `finetuner check FILE` shows what it found."""

    mapping: Annotated[dict[Name, Name], Field(max_length=16)] = {}
    """Which column plays which role, where the names are unusual: {"prompt": "Frage", "completion": "Antwort"}."""

    encoding: Annotated[str, Field(min_length=1, max_length=40)] = "auto"
    """How the file's bytes become letters: utf-8, windows-1252, utf-16, shift_jis ... auto finds it and says so."""

    delimiter: Auto | Annotated[str, Field(min_length=1, max_length=1)] | None = "auto"
    """What parts the cells of a CSV file: , ; | or any other character. auto finds it; null: it is no table."""

    header: Auto | bool | None = "auto"
    """Whether the first line of a CSV file names its columns. auto finds it; null: it is no table."""

    drop: Annotated[list[Droppable], Field(max_length=12)] = []
    """Rows with these findings are left out: for example ["duplicate", "secret"]. Otherwise they stay."""

    max_length: Auto | Annotated[int, Field(ge=16, le=131_072)] = "auto"
    """Longest row in tokens; what is longer is cut. auto: the longest row, at most 2048 and what the model can."""

    train_on: Literal["auto", "responses", "all"] = "auto"
    """Learn from the answers only, or from every token. auto: answers, and all of it for plain text."""

    eval_fraction: Auto | Annotated[float, Field(ge=0, le=0.5)] = "auto"
    """Share of rows kept away from training to measure eval loss. auto: 5 % (at most 200 rows), 0 below 100 rows.

    Rows that ask the same stay on one side."""


class Eval(Group):
    dataset: Reference | None = None
    """Rows to measure eval loss on, laid out like the training data. Default: a share of the training data."""

    every_steps: Auto | Annotated[int, Field(ge=1, le=10_000_000)] = "auto"
    """Measure eval loss each so many steps. auto: a fifth of the run."""

    sample_prompts: Auto | Annotated[list[Prompt], Field(max_length=8)] = "auto"
    """Prompts that are answered at each evaluation, to watch the answers change; none of it is learned from. auto:
    three rows kept for evaluation, and none on a CPU, where answering takes longer than it is worth. []: none."""


class EarlyStopping(Group):
    patience: Annotated[int, Field(ge=1, le=100)] = 3
    """Stop after so many evaluations in a row without a better eval loss."""

    min_delta: Annotated[float, Field(ge=0, le=10)] = 0.0
    """A better eval loss is one that is lower by more than this."""


class Limits(Group):
    max_hours: Annotated[float, Field(gt=0, le=10_000)] | None = 72
    """Stop training after so many hours, all attempts together, and keep what was learned. null: no limit."""

    early_stopping: EarlyStopping | None = EarlyStopping()
    """Stop when the eval loss no longer falls; the best checkpoint becomes the result. It takes rows kept for
    evaluation, and does nothing without them. null: train to the end and keep the last step."""

    on_nan: Literal["stop"] = "stop"
    """A loss that is not a number ends the job as `diverged`; the last sound checkpoint is kept."""

    divergence_factor: Annotated[float, Field(ge=1.5, le=1000)] | None = 3
    """A loss that stays so many times above the best it had been ends the job as `diverged`. Both are smoothed over
    50 logged steps, and a best below 1 counts as 1, so that noise does not trip it. null: off."""

    stall_minutes: Annotated[float, Field(ge=3, le=10_080)] | None = 30
    """A training that gives no sign of life for so long is ended, and tried again. null: off.

    The first steps on a GPU compile kernels in silence, for a minute and a half on an H100."""

    min_free_gb: Annotated[float, Field(ge=0, le=100_000)] = 1.0
    """Free disk (in GB) below which a job does not start, and ends after one last checkpoint."""

    max_problem_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The job is blocked when more than this share of the rows cannot be trained on."""

    max_fraction: Annotated[dict[Name, Annotated[float, Field(ge=0, le=1)]], Field(max_length=32)] = {}
    """The job is blocked when more than this share of the rows has a finding: {"duplicate": 0.2, "secret": 0}.

    1 allows what would block by itself, such as {"one_label": 1}."""


def batches(train: Train, largest: int = 8) -> tuple[int, int]:
    """(batch_size, gradient_accumulation) whose product is the effective batch; `largest` bounds an auto batch_size.

    Raises:
        ValueError: batch_size or gradient_accumulation alone does not divide effective_batch.
    """
    size, accumulation, effective = train.batch_size, train.gradient_accumulation, train.effective_batch
    if isinstance(size, int) and isinstance(accumulation, int):
        return size, accumulation
    if size == "auto" and accumulation == "auto":
        fitting = max(d for d in range(1, min(largest, effective) + 1) if effective % d == 0)
        return fitting, effective // fitting
    given = accumulation if size == "auto" else size
    assert isinstance(given, int)
    if effective % given:
        raise ValueError(f"{given} does not divide the effective batch of {effective}")
    return (effective // given, given) if size == "auto" else (given, effective // given)
