"""The plain Unsloth script that a job is measured against. Run as: python tests/bare_unsloth.py CONFIG.json"""

import json
import sys
import time
from pathlib import Path

from unsloth import FastLanguageModel  # isort: skip
from datasets import Dataset
from transformers import TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer
from unsloth.chat_templates import train_on_responses_only

config = json.loads(Path(sys.argv[1]).read_text())
rows = [json.loads(line) for line in Path(config["dataset"]).read_text().splitlines()]
set_seed(config["seed"])
model, tokenizer = FastLanguageModel.from_pretrained(
    config["model"], max_seq_length=config["max_length"], load_in_4bit=config["load_in_4bit"], use_exact_model_name=True
)
modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
model = FastLanguageModel.get_peft_model(
    model, r=16, lora_alpha=16, lora_dropout=0, target_modules=modules, bias="none",
    use_gradient_checkpointing=config["gradient_checkpointing"], random_state=config["seed"],
)  # fmt: skip
tokenizer.chat_template = Path("spool/data/templates/gemma3.jinja").read_text()


def text(row: dict) -> dict:
    turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
    return {"text": tokenizer.apply_chat_template(turns, tokenize=False).removeprefix("<bos>")}


class StepEnds(TrainerCallback):
    times: list[float] = []  # noqa: RUF012

    def on_step_end(self, *_, **__):
        self.times.append(time.time())


trainer = SFTTrainer(
    model=model, processing_class=tokenizer, train_dataset=Dataset.from_list([text(row) for row in rows]),
    args=SFTConfig(output_dir=config["output"], seed=config["seed"], report_to="none", save_strategy="no",
                   logging_steps=1, dataset_text_field="text", max_length=config["max_length"], **config["arguments"]),
)  # fmt: skip
trainer = train_on_responses_only(
    trainer, instruction_part="<start_of_turn>user\n", response_part="<start_of_turn>model\n"
)
trainer.add_callback(StepEnds())
trainer.train()
model.save_pretrained(config["output"])
losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
Path(config["output"], "curve.json").write_text(json.dumps({"losses": losses, "times": StepEnds.times}))
