"""Training by packed rows: base and adapter by transformers and PEFT, steps by `runner.packed.step`."""

import re
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

from runner.bases import Base
from runner.job import Attempt
from runner.lasting import Lasting, arguments
from runner.packed import ATTENTION, attention  # noqa: F401  (the latter registers the former)
from runner.packed.batch import collate
from runner.packed.step import Step
from runner.targets import named
from spool.protocol.spec import JobSpec


class Packing(Trainer):
    """transformers' Trainer whose batches are rows, and whose steps are a Step's."""

    step: Step

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: int | None = None) -> torch.Tensor:
        if not model.training:
            model.train()
        assert num_items_in_batch is not None
        return self.step.learn(inputs["rows"], num_items_in_batch)

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any
    ) -> tuple[torch.Tensor, None, None]:
        return self.step.loss(inputs["rows"]), None, None

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: Any) -> int:
        return sum(each["rows"].trained_tokens for each in batch_samples)

    def floating_point_ops(self, inputs: Any) -> int:
        return 0


class PackedTrainer(Lasting, Packing):
    """One trainer for one attempt."""


def load(spec: JobSpec, base: Base) -> Any:
    """The base in 16 bit with a fresh adapter (in 32 bit on a CPU, where nothing smaller is quicker). In 4 bit it is
    NF4 with double quantisation (arXiv 2305.14314, section 3); embedding and output layer stay as they are."""
    on_gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if on_gpu else torch.float32
    model = AutoModelForCausalLM.from_pretrained(
        str(base.folder),
        dtype=dtype,
        **({"quantization_config": nf4(dtype)} if spec.precision == "4bit" else {}),
        attn_implementation=ATTENTION,
        device_map={"": 0} if on_gpu else None,
        local_files_only=True,
        trust_remote_code=False,
    )
    lora = LoraConfig(
        r=spec.lora.rank,
        lora_alpha=spec.lora.alpha,
        lora_dropout=spec.lora.dropout,
        target_modules=targets(model, spec.lora.target_modules),
        use_rslora=spec.lora.rslora,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, lora)


def nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    """Beside the output layer the weights stay that Gemma 3n's own code looks at."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=["lm_head", "prediction_coefs", "correction_coefs"],
    )


def targets(model: Any, modules: str | list[str]) -> list[str] | str:
    """Which modules get an adapter, as PEFT takes it. Of a model that also sees or hears it is an expression for its
    language model alone: the towers have modules of the same names. Raises what `named` of runner.targets raises."""
    names = named(model, modules)
    if not hasattr(model.base_model, "language_model"):
        return names
    return rf".*\.language_model\.(.*\.)?({'|'.join(map(re.escape, names))})"


def trainer(
    spec: JobSpec,
    attempt: Attempt,
    model: Any,
    train: Any,
    held_out: Any | None,
    room_tokens: float,
    recorded_tokens: float,
) -> PackedTrainer:
    """The trainer of a resolved spec; `train` and `held_out` are datasets of input_ids and labels.

    Args:
        room_tokens: so many are trained on at once; more come in parts.
        recorded_tokens: so many are recorded as a CUDA graph.
    """
    assert isinstance(spec.data.max_length, int)
    assert isinstance(spec.train.batch_size, int)
    settings = arguments(spec, attempt, held_out is not None)
    if model.device.type == "cuda" and settings["optim"] == "adamw_torch":
        settings["optim"] = "adamw_torch_fused"
    args = TrainingArguments(
        **settings, per_device_eval_batch_size=min(8, spec.train.batch_size), remove_unused_columns=False
    )
    args._n_gpu = 1  # transformers would give each card that it sees a batch (nn.DataParallel)
    made = PackedTrainer(
        model=model,
        train_dataset=train.with_format("numpy"),
        eval_dataset=held_out.with_format("numpy") if held_out else None,
        data_collator=collate,
        args=args,
    )
    made.step = Step(model, spec.train.batch_size, spec.data.max_length, room_tokens, recorded_tokens, attempt.note)
    if spec.train.gradient_checkpointing:
        made.step.recompute()
    model.zero_grad = lambda set_to_none=True: made.step.forget()
    return made
