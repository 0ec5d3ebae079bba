"""Training by Unsloth and TRL: in 8 bit, with experts in 4 bit, on cards older than Ampere, and on a CPU.

What is computed is theirs alone (tests/test_training_parity.py). `runner.packed.engine` is the other way to train.
"""

import unsloth  # noqa: F401, I001  (it patches the others, so it comes first)

from typing import Any

from trl import SFTConfig, SFTTrainer
from unsloth import FastLanguageModel

from runner.bases import Base
from runner.job import Attempt
from runner.lasting import Lasting, arguments
from runner.targets import named
from spool.protocol.spec import JobSpec


class Trainer(Lasting, SFTTrainer):
    """One trainer for one attempt."""


def load(spec: JobSpec, base: Base) -> tuple[Any, Any]:
    """(base model with a fresh adapter, its tokenizer)."""
    assert isinstance(spec.data.max_length, int)
    model, tokenizer = FastLanguageModel.from_pretrained(
        str(base.folder),
        max_seq_length=spec.data.max_length,
        load_in_4bit=spec.precision == "4bit",
        load_in_8bit=spec.precision == "8bit",
        use_exact_model_name=True,
        trust_remote_code=False,
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=spec.lora.rank,
        lora_alpha=spec.lora.alpha,
        lora_dropout=spec.lora.dropout,
        target_modules=named(model, spec.lora.target_modules),
        target_parameters=[],  # else experts get adapters on a GPU, which nothing here could merge
        bias="none",
        use_rslora=spec.lora.rslora,
        use_gradient_checkpointing="unsloth" if spec.train.gradient_checkpointing else False,
        random_state=spec.train.seed,
    )
    return model, tokenizer


def trainer(
    spec: JobSpec, attempt: Attempt, loaded: tuple[Any, Any], train: Any, held_out: Any | None, *_: float
) -> Trainer:
    """The trainer of a resolved spec; `train` and `held_out` are datasets of input_ids and labels."""
    model, tokenizer = loaded
    return Trainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=train,
        eval_dataset=held_out,
        args=SFTConfig(
            **arguments(spec, attempt, held_out is not None),
            per_device_eval_batch_size=spec.train.batch_size,
            max_length=spec.data.max_length,
            packing=False,
            dataset_kwargs={"skip_prepare_dataset": True},  # the check has cut every row; no second copy of them
        ),
    )
