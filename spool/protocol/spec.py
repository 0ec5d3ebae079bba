"""The job spec, version 1: each setting with its type, bounds, default and the text that forms and schema show.

There are four kinds. The smallest specs are
    {"schema": 1, "model": "gemma-3-270m", "dataset": "rows.jsonl"}                           trains
    {"schema": 1, "kind": "generate", "model": "gemma-3-270m", "prompts": ["Hello"]}          answers
    {"schema": 1, "kind": "export", "job": "ID", "export": ["gguf:q4_k_m"]}                   makes files of a training
    {"schema": 1, "kind": "evaluate", "job": "ID"}                                            compares it with its base
Reading one from bytes, with every problem at once, is spool.protocol.parse's.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from spool.protocol.formats import FORMATS, Format
from spool.protocol.training import Data, Eval, Group, Limits, Lora, Name, Prompt, Reference, Train

SCHEMA_VERSION = 1

Ulid = Annotated[str, Field(pattern=r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
Submitter = Annotated[str, Field(min_length=1, max_length=320)] | None
Exports = Annotated[list[Format], Field(min_length=1, max_length=len(FORMATS))]
Benchmark = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.()-]*$", max_length=120, examples=["arc_easy"])]
_HUB_NAME = "[A-Za-z0-9_]([.-]?[A-Za-z0-9_])*"
Repository = Annotated[
    str, Field(pattern=f"^{_HUB_NAME}/{_HUB_NAME}$", max_length=193, examples=["my-team/support-gemma"])
]

LAST = ("priority", "submission_id", "retry_of", "submitted_by")
"""Fields of every kind that stand behind what the job does."""


class Envelope(Group):
    """What a job of any kind may say of itself."""

    model_config = ConfigDict(populate_by_name=True)

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    """Version of this format: 1."""

    kind: str

    name: Name | None = None
    """A name for people. Default: made from what the job names."""

    priority: Annotated[int, Field(ge=0, le=9)] = 5
    """0 goes first, 9 last; within a priority, first come, first served."""

    submission_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Any text of yours. The same one dropped twice is one job, so a script may safely try again."""

    retry_of: Ulid | None = None
    """The job that this one repeats; `finetuner retry` sets it."""

    submitted_by: Submitter = None
    """Who asks for the job, as the web app knows from the sign-in. Believed only in drops of the accounts that
    web_accounts in settings.json names; else it is the account that owns the dropped file."""

    @property
    def jobs(self) -> list[str]:
        """The finished trainings whose adapters it needs, the one whose base counts first."""
        return []

    def to_json(self) -> dict[str, Any]:
        """As it is kept in spec.json: what the job does first, who asked for it last."""
        document = self.model_dump(by_alias=True)
        last = {name: document.pop(name) for name in LAST}
        return {**document, **last}


class JobSpec(Envelope):
    """A training: what is learned from which rows."""

    model_config = ConfigDict(title="Gemma Fine-Tuner job spec: train")

    kind: Literal["train"] = "train"
    """What to do: "train" (this, the default), "generate", "export" or "evaluate"."""

    model: Reference
    """The base: a name under models/ or of the catalogue (`finetuner models`), a Hugging Face id (ORG/NAME)
    or a folder."""

    dataset: Reference
    """The rows: a file, or an uploaded NAME or NAME@VERSION."""

    precision: Literal["auto", "4bit", "8bit", "16bit"] = "auto"
    """Precision of the frozen base while training. auto: 16bit on a CPU and where it fits the card, if need be with
    gradient_checkpointing, else 4bit."""

    export: Exports = Field(["adapter"])
    """What to make at the end, each proven to answer like the adapter: "adapter" (always made), "merged", "gguf:q4_k_m"
    and others. More can be made of a finished job at any time."""

    report: bool = True
    """Compare base and tuned model at the end, for four minutes at most, and write a page for people about it
    (report.html). false: none; a job of kind "evaluate" makes one at any time."""

    lora: Lora = Lora()
    train: Train = Train()
    data: Data = Data()
    eval: Eval = Eval()
    limits: Limits = Limits()


class Sampling(Group):
    """How an answer is written, token by token."""

    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 256
    """Longest answer in tokens. A token is about four letters of English."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0
    """How freely the model chooses. 0: always the likeliest token, the same answer each time; 0.7 to 1 is livelier."""

    top_p: Annotated[float, Field(gt=0, le=1)] = 1
    """Choose among the likeliest tokens that together have this probability. 1: among all. Needs a temperature."""

    top_k: Annotated[int, Field(ge=0, le=1000)] = 0
    """Choose among so many of the likeliest tokens. 0: among all. Needs a temperature."""

    repetition_penalty: Annotated[float, Field(ge=0.5, le=2)] = 1
    """Above 1 makes what was said already less likely. 1: off."""

    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 42
    """Fixes what is chosen where the temperature is above 0."""


class GenerateSpec(Sampling, Envelope):
    """Answers of a trained model, of its base, or of both side by side."""

    model_config = ConfigDict(title="Gemma Fine-Tuner job spec: generate")

    kind: Literal["generate"]
    """What to do: "generate" (this), "train" (the default), "export" or "evaluate"."""

    job: Ulid | None = None
    """The finished training whose adapter answers, on the base it was trained on. Either this or `model`."""

    model: Reference | None = None
    """A base that answers as it is: a name under models/ or of the catalogue (`finetuner models`), a Hugging Face id
    (ORG/NAME) or a folder."""

    also: Annotated[list[Ulid], Field(max_length=4)] = Field([])
    """Further finished trainings of the same base, whose adapters answer too."""

    base: bool = True
    """Whether the bare base answers as well, to compare with."""

    prompts: Annotated[list[Prompt], Field(min_length=1, max_length=1000)] | None = None
    """What is asked. Either this, `dataset` or `interactive`. The whole spec has at most 256 KiB."""

    dataset: Reference | None = None
    """Rows whose questions are asked: a file, or an uploaded NAME or NAME@VERSION. Their answers are kept beside as
    the reference. Of the dataset that `job` was trained on, rows are asked that were kept for evaluation."""

    rows: Annotated[int, Field(ge=1, le=1000)] = 20
    """How many rows of `dataset` are asked; `seed` chooses which."""

    interactive: bool = False
    """Stay and answer what is asked while the job runs. It starts when nothing else can, and makes room for a job
    that waits."""

    system: Annotated[str, Field(min_length=1, max_length=8192)] | None = None
    """What the model is told before each prompt, such as a role. In a session each question brings its own."""

    precision: Literal["auto", "4bit", "8bit", "16bit"] = "auto"
    """Precision of the base. auto: 16bit on a CPU and where it fits the card, else 4bit."""

    idle_minutes: Annotated[float, Field(gt=0, le=1440)] = 10
    """An interactive job that is asked nothing for so long ends by itself."""

    max_hours: Annotated[float, Field(gt=0, le=1000)] = 2
    """Stop after so many hours at work, and keep what was answered."""

    @property
    def jobs(self) -> list[str]:
        """The trainings whose adapters answer."""
        return [*([self.job] if self.job else []), *self.also]

    @property
    def who(self) -> list[str]:
        """Who answers, in this order: "base", or the job of an adapter."""
        return [*(["base"] if self.base else []), *self.jobs]


class Push(Group):
    """A model repository on the Hugging Face Hub, which holds what the last push put there."""

    repo: Repository
    """Its name: the organisation or the account, then the model's. It is made where there is none yet."""

    private: bool = True
    """Whether only its owners may see it. false: everybody may, if this push makes it."""


class ExportSpec(Envelope):
    """Files of a trained model for other programs, each proven to answer like its adapter."""

    model_config = ConfigDict(title="Gemma Fine-Tuner job spec: export")

    kind: Literal["export"]
    """What to do: "export" (this), "train" (the default), "generate" or "evaluate"."""

    job: Ulid | None = None
    """The finished training whose adapter is exported; what is made lies beside it. Either this or `adapter`."""

    adapter: Reference | None = None
    """The folder of a LoRA adapter in PEFT's layout, whose adapter_config.json names the base."""

    export: Exports = Field(["merged"])
    """What to make: "merged", "gguf:q4_k_m" and others. What is there already is not made again."""

    push: Push | None = None
    """Where on the Hugging Face Hub to put what `export` names: one format alone, or any GGUFs together."""

    model: ClassVar[None] = None
    dataset: ClassVar[None] = None

    @property
    def jobs(self) -> list[str]:
        return [self.job] if self.job else []


class EvaluateSpec(Envelope):
    """How a trained model answers, beside its base: a report for people, and numbers to compare models by."""

    model_config = ConfigDict(title="Gemma Fine-Tuner job spec: evaluate")

    kind: Literal["evaluate"]
    """What to do: "evaluate" (this), "train" (the default), "generate" or "export"."""

    job: Ulid | None = None
    """The finished training whose adapter is asked. Either this or `adapter`."""

    adapter: Reference | None = None
    """The folder of a LoRA adapter in PEFT's layout, whose adapter_config.json names the base. Takes a `dataset`."""

    dataset: Reference | None = None
    """Rows to ask, with the answers to expect: a file, or an uploaded NAME or NAME@VERSION. Default: those that the
    training kept for evaluation."""

    data: Data | None = None
    """How the rows of `dataset` are read. Default: as the training read its own."""

    rows: Annotated[int, Field(ge=1, le=2000)] = 120
    """How many rows are asked, at most; always the same ones of the same data, so that models can be compared."""

    general: bool = True
    """Whether 40 general questions are asked too, to see what was forgotten."""

    benchmarks: Annotated[list[Benchmark], Field(max_length=8)] = Field([])
    """Tasks or groups of lm-evaluation-harness that both models are asked too, such as "arc_easy" or "gsm8k", or of
    the server's own (docs/report.md). Needs the extra that `make benchmarks` installs."""

    benchmark_rows: Annotated[int, Field(ge=1, le=10_000)] = 100
    """How many examples of each task are asked, at most: its first ones."""

    benchmark_chat: bool = False
    """Whether benchmarks are asked as conversations, by the model's chat template. false: as plain text, as most
    published numbers were measured."""

    max_minutes: Annotated[float, Field(ge=0.1, le=1440)] = 10
    """What cannot be asked in so long is left out, and the report says so."""

    model: ClassVar[None] = None

    @property
    def jobs(self) -> list[str]:
        return [self.job] if self.job else []


Spec = JobSpec | GenerateSpec | ExportSpec | EvaluateSpec
KINDS: dict[str, type[Spec]] = {
    "train": JobSpec,
    "generate": GenerateSpec,
    "export": ExportSpec,
    "evaluate": EvaluateSpec,
}


def load(document: Mapping[str, Any]) -> Spec:
    """The spec of runs/ID/spec.json, which was accepted before.

    Raises:
        ValueError: it is none of this release's.
    """
    kind = KINDS.get(str(document.get("kind") or "train"))
    if kind is None:
        raise ValueError(f"no kind of job is called {document.get('kind')!r}")
    return kind.model_validate(document)
