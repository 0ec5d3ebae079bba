"""Every code that a job's error may carry, with what it means and what to do: the source of docs/failures.md.

Run as: python -m spool.health.failure_codes > docs/failures.md
"""

from spool.health.cures import AS_IT_IS, ONCE_MORE

MEANINGS: dict[str, tuple[str, str]] = {
    "out_of_memory": (
        "Memory ran out: the card's, or the machine's. The message has the sizes where they were told. A training has "
        "tried fewer rows at once by itself before, and packed ones with gradient_checkpointing (a note in its events "
        "says so).",
        "Retry as suggested: with what its check had found to fit, else with fewer rows at once and the same effective "
        "batch, then shorter rows, then a 4-bit base.",
    ),
    "diverged": (
        "The loss became infinite, no number, or ran away. The last good checkpoint is kept.",
        "Retry as suggested, with a third of the learning rate.",
    ),
    "stalled": (
        "The job gave no sign of life for `limits.stall_minutes`. Where each thread stood is in its log.",
        "Retry once. If it stalls at the same place again, report it with the log.",
    ),
    "crash_loop": (
        "The process died by itself three times in a row without a newer checkpoint.",
        "Read the evidence and the end of the log; correct the cause before a retry.",
    ),
    "disk_full": ("The disk or the quota is full, or less is free than `limits.min_free_gb`.", "Free space and retry."),
    "disk_read_only": ("The disk can only be read.", "Have it mounted for writing and retry."),
    "disk_error": ("The disk could not be read or written.", "Look at the disk or the mount (`dmesg`) and retry."),
    "shared_memory": ("/dev/shm is too small.", "Make it larger (`--shm-size` for a container) and retry."),
    "permission_denied": ("A file may not be read or written by the runner.", "Correct its permissions and retry."),
    "too_many_open_files": ("The process reached its limit of open files.", "Raise LimitNOFILE= and retry."),
    "file_missing": ("A file that was there is not there any more.", "Put it back and retry."),
    "model_gated": (
        "The model's terms must be accepted before it can be fetched.",
        "Open the model's page, accept the terms, give the runner a token of that account as HF_TOKEN, retry.",
    ),
    "token_rejected": ("The hub does not accept the token.", "Make a new token, set it as HF_TOKEN, retry."),
    "no_token": (
        "The runner has no token for the hub, and nothing can be pushed without one.",
        "Make one that may write, set it as HF_TOKEN, retry.",
    ),
    "repo_public": (
        "The repository on the hub is public, and the push was to be private.",
        "Make it private there, push elsewhere, or say `private: false`.",
    ),
    "repo_taken": (
        "The repository on the hub holds a model that was not pushed from here.",
        "Push to another name, or delete that model there.",
    ),
    "not_proven": (
        "What was to be pushed is suspect: its certificate does not show that it answers like its adapter.",
        "Look at the checks that it failed; push another format.",
    ),
    "adapter_missing": ("The folder that was to be exported holds no adapter in PEFT's layout.", "Correct the path."),
    "base_missing": (
        "The adapter's adapter_config.json names no base model.",
        "Write base_model_name_or_path into it.",
    ),
    "base_changed": (
        "The base's weights are not those that the adapter was trained on.",
        "Put the same base there again, or train on this one.",
    ),
    "base_damaged": ("A file of the base's weights is damaged or cut short.", "Fetch the base again."),
    "base_quantised": ("The base is quantised on disk: nothing can be merged into it.", "Train on the 16-bit base."),
    "cannot_merge": (
        "The adapter is of a kind that has no merged form here: DoRA, of embeddings, or with saved modules.",
        "Use the adapter as it is.",
    ),
    "not_finite": ("A merged weight is infinite or no number: adapter or base is damaged.", "Train again."),
    "gguf_failed": ("llama.cpp's converter does not take this model, or this adapter.", "Export it merged."),
    "gptq_missing": (
        "4-bit exports are made by llm-compressor, which is not installed on the server.",
        "Run `make gptq` on the server, then export again.",
    ),
    "gptq_failed": ("llm-compressor could not quantise this model.", "Export it merged, or as GGUF."),
    "gguf_damaged": ("A GGUF file is not whole.", "Export it again."),
    "gguf_quantised": ("A GGUF that was to be quantised is quantised already.", "Quantise a 16-bit GGUF."),
    "onnx_missing": (
        "ONNX needs an extra that is not installed here.",
        "Run `make onnx` in the application's folder (a service: `deploy/setup.sh onnx`), then retry.",
    ),
    "onnx_failed": ("onnxruntime's model builder does not take this model.", "Export it merged."),
    "benchmarks_missing": (
        "Benchmarks need an extra that is not installed here.",
        "Run `make benchmarks` in the application's folder (a service: `deploy/setup.sh benchmarks`), then retry.",
    ),
    "benchmark_unknown": ("lm-eval knows no task of this name, and this server has none.", "Correct the name."),
    "benchmark_failed": (
        "A benchmark cannot be used: its definition or its data do not fit, or it needs code that is never run here.",
        "Leave it out, or correct its YAML file where it is one of your own.",
    ),
    "no_training_rows": (
        "GPTQ and importance matrices are made with the training rows, and they are gone.",
        "Export it without +imatrix; in place of GPTQ take gguf:q4_k_m.",
    ),
    "export_changed": ("A file of an export is not as it was exported.", "Delete that export, make it again."),
    "no_manifest": ("An export has no manifest, or a damaged one.", "Delete that export, make it again."),
    "model_missing": ("There is no such model here or on the hub.", "Correct the name in the spec."),
    "no_safetensors": ("The model has no weights as safetensors.", "Choose another copy of it."),
    "not_a_gemma": ("The model is not a Gemma, or not one that can be trained here.", "Choose a Gemma."),
    "model_damaged": ("A file of the model is damaged or incomplete.", "Remove it, fetch it again, retry."),
    "bad_tokenizer": ("The model's tokenizer cannot be read.", "Choose another copy of the model."),
    "bad_template": ("The model's chat template cannot be used.", "Choose another copy of the model."),
    "no_template": ("The model has no chat template and none is known for it.", "Choose another model."),
    "no_network": (
        "The hub could not be reached.",
        "Nothing at first: the job is tried again by itself. Then check the network and retry.",
    ),
    "hub_busy": (
        "The hub is busy or limits requests.",
        "Nothing at first: the job is tried again by itself. Then retry later; a token raises the limits.",
    ),
    "hub_error": ("The hub answered with an error.", "Retry later."),
    "certificate_refused": ("The hub's certificate was not accepted.", "Set SSL_CERT_FILE for the runner and retry."),
    "gpu_lost": ("The card is gone or its hardware failed.", "Reboot the machine and retry."),
    "gpu_fault": ("A program on the card broke off.", "Retry once; then look at the card's errors."),
    "gpu_busy": ("Another program holds the card.", "End it or wait for it, and retry."),
    "gpu_unsupported": ("PyTorch was not built for this card.", "Install the PyTorch that fits it and retry."),
    "device_assert": (
        "A check inside the card failed, mostly over a token that the model does not have.",
        "Check that the model's folder has its own tokenizer.",
    ),
    "no_gpu": ("No card can be seen.", "Check `nvidia-smi` and `finetuner doctor`, and retry."),
    "driver_too_old": ("The NVIDIA driver is older than PyTorch needs.", "Update the driver and retry."),
    "driver_changed": ("The driver was updated while the machine ran.", "Reboot the machine and retry."),
    "no_compiler": ("There is no C compiler to build the card's programs with.", "Install gcc and retry."),
    "version_mismatch": (
        "What was saved was made by other versions, or the installed libraries do not fit together.",
        "Retry: the new job begins at step 0. If it fails again, `make setup`.",
    ),
    "checkpoint_damaged": ("A checkpoint cannot be read.", "Retry: the new job begins at step 0."),
    "data_blocked": ("The data cannot be trained on; the findings are listed by line.", "Correct the data."),
    "data_changed": ("The data changed while it was read.", "Wait until it is whole and retry."),
    "dataset_missing": ("The dataset is not there.", "Correct the name, or put it back."),
    "dataset_changed": ("The dataset is not the one that was named any more.", "Name the version that is meant."),
    "dataset_deleted": ("The dataset was deleted.", "Upload it again."),
    "dataset_gated": ("The dataset's terms must be accepted first.", "Accept them and give the runner HF_TOKEN."),
    "bad_reference": ("The spec names no dataset that can exist.", "Correct the name."),
    "bad_path": ("The spec names no path that can exist.", "Correct the path."),
    "outside_roots": ("The path lies outside the folders that jobs may read.", "Move the file, or set allowed_roots."),
    "bad_archive": ("The archive is damaged or hides its contents.", "Pack it again."),
    "bad_link": ("A link leads nowhere, or outside.", "Replace it by the file."),
    "too_large": ("A file is larger than the limits allow.", "Split it, or raise data_limits."),
    "too_many_columns": ("A table has more columns than the limits allow.", "Leave columns out."),
    "too_many_files": ("A folder or archive has more files than the limits allow.", "Join them."),
    "unpacks_too_far": ("An archive unpacks to more than the limits allow.", "Unpack it yourself."),
    "job_missing": ("The job whose model was to answer is not there.", "Correct its id."),
    "job_not_done": ("The job whose model was to answer has not finished, so there is no model.", "Wait for it."),
    "no_adapter": ("The job whose model was to answer has left no adapter.", "Train it again."),
    "adapter_removed": ("The files of the model that was to answer were removed.", "Train it again."),
    "adapter_mismatch": ("An adapter does not fit its base model.", "Train it again on this base."),
    "bad_turns": ("The model's chat template refuses the conversation.", "Leave the system text out, or begin anew."),
    "special_token": ("A text holds a control token of the model, which would end its turn.", "Leave it out."),
    "too_long": ("A conversation and its answer do not fit the model's context.", "Shorten one of them."),
    "unknown_who": ("A session was asked for a model that does not answer in it.", "Ask one of those it names."),
    "session_ended": ("A session was asked something after it had ended.", "Open a new one."),
    "bad_spec": ("The spec asks for what does not go together here.", "Correct the field that the message names."),
    "not_found": ("A name in the spec leads nowhere.", "Correct the name."),
    "check_failed": ("The check of the data broke off for a reason that was not foreseen.", "Read check.log."),
    "check_crashed": ("The check of the data died three times in a row.", "Read the end of check.log."),
    "unexpected": ("Something failed that was not foreseen; the evidence is its last line.", "Read the log."),
}


def again(code: str) -> str:
    """What a retry offers for this code."""
    if code in ("out_of_memory", "diverged"):
        return "with a change"
    return "the same spec" if code in AS_IT_IS else "the same spec, once" if code in ONCE_MORE else ""


def document() -> str:
    """docs/failures.md."""
    rows = [f"| `{code}` | {means} | {do} | {again(code)} |" for code, (means, do) in MEANINGS.items()]
    return f"""# Why a job failed

The error of a failed job has a `code` for programs, a `message` and a `hint` for people, and `evidence`: the one line
that it was seen from, without secrets. `finetuner show ID` prints them with the suggested change, `finetuner retry ID
--suggested` submits it, and so does the button on the job's Monitor page. This page is written by
`python -m spool.health.failure_codes`, and a test holds it to the code.

| code | what it means | what to do | what a retry suggests |
|---|---|---|---|
{chr(10).join(rows)}

What ends an attempt and not the job: a stop, a reboot, a kill from outside and the runner's own death never count
against a job; it goes back to the head of its queue and on from its newest good checkpoint. Crashes, stalls and kills
by the kernel for memory count. Three in a row without a newer checkpoint end the job, two where memory was the reason
each time.
"""


if __name__ == "__main__":
    print(document(), end="")
