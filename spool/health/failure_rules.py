"""How a failure is recognised: one rule a kind of message, tried in order, with what it means and the one cure.

A rule's pattern is searched for in `TypeName: text` of an exception and in the last fatal lines of a log, so that an
error reads the same whether Python caught it or the process died of it. Each rule has a real message as its test
(tests/test_health_failure.py). Words in braces are groups of the pattern.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    code: str
    pattern: re.Pattern[str]
    message: str
    hint: str


def _rule(code: str, pattern: str, message: str, hint: str) -> Rule:
    return Rule(code, re.compile(pattern), message, hint)


SMALLER = "Retry with fewer rows on the card at once (train.batch_size); what is learned stays the same."
FREE = "Free some space (`finetuner doctor` shows what uses it), then retry."
REBOOT = "Reboot the machine; if it comes back, the card or its power supply is failing. Then retry."
ANEW = "Retry: a new job begins at step 0 with the versions that are installed now."

MEMORY = (
    _rule(
        "out_of_memory",
        r"CUDA out of memory\. Tried to allocate (?P<wanted>[\d.]+ \w+)\. GPU (?P<gpu>\d+) has a total capacity of "
        r"(?P<total>[\d.]+ \w+) of which (?P<free>[\d.]+ \w+) is free",
        "the card's memory ran out: {wanted} more were asked for, and {free} of its {total} were free.",
        SMALLER,
    ),
    _rule(
        "out_of_memory",
        r"CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED"
        r"|\bOutOfMemoryError\b|NCCL.*out of memory",
        "the card's memory ran out.",
        SMALLER,
    ),
    _rule(
        "out_of_memory",
        r"DefaultCPUAllocator: can't allocate memory: you tried to allocate (?P<wanted>\d+) bytes",
        "the machine's memory ran out: {wanted} bytes more were asked for.",
        SMALLER,
    ),
    _rule(
        "out_of_memory",
        r"Unable to allocate (?P<wanted>[\d.]+ \w+) for an array",
        "the machine's memory ran out: {wanted} more were asked for.",
        SMALLER,
    ),
    _rule(
        "out_of_memory",
        r"\bMemoryError\b|Cannot allocate memory|ArrowMemoryError|std::bad_alloc|DefaultCPUAllocator: not enough memory"
        r"|malloc of size \d+ failed",
        "the machine's memory ran out.",
        SMALLER,
    ),
    _rule(
        "shared_memory",
        r"insufficient shared memory \(shm\)|out of shared memory|unable to (?:open|allocate) shared memory",
        "the machine's shared memory (/dev/shm) ran out.",
        "Give it more: --shm-size for a container, or a larger tmpfs at /dev/shm. Then retry.",
    ),
)

DISK = (
    _rule(
        "disk_full",
        r"Disk quota exceeded|\[Errno 122\]|os error 122",
        "the disk quota is used up.",
        "Free some space in the data home, or have the quota raised, then retry.",
    ),
    _rule("disk_full", r"No space left on device|\[Errno 28\]|os error 28|StorageFull", "the disk is full.", FREE),
    _rule(
        "disk_full",
        r"PytorchStreamWriter failed writing|inline_container\.cc:\d+\] \. (?:unexpected pos|.*file write failed)",
        "a checkpoint could not be written: the disk is full, or failing.",
        FREE,
    ),
    _rule(
        "disk_read_only",
        r"Read-only file system|\[Errno 30\]|os error 30",
        "the disk can only be read.",
        "An administrator must mount it for writing; the kernel's log (`dmesg`) says why it was not. Then retry.",
    ),
    _rule(
        "disk_error",
        r"\[Errno 5\] |Input/output error|os error 5\)|Stale file handle|\[Errno 116\]",
        "the disk could not be read or written.",
        "An administrator must look at the disk or the mount (`dmesg`). Then retry.",
    ),
)

HUB = (
    _rule(
        "model_gated",
        r"(?:access (?:a )?gated repo|Access to model \S+ is restricted|GatedRepoError)"
        r"(?s:.)*?huggingface\.co/(?:api/models/)?(?P<model>[\w.-]+/[\w.-]*\w)",
        "{model} is gated: its terms must be accepted first.",
        "Open https://huggingface.co/{model}, accept its terms, give the runner that account's HF_TOKEN, then retry.",
    ),
    _rule(
        "model_gated",
        r"access (?:a )?gated repo|is a gated repository|GatedRepoError",
        "the model is gated: its terms must be accepted first.",
        "Open its page on huggingface.co, accept its terms, give the runner that account's HF_TOKEN, then retry.",
    ),
    _rule(
        "token_rejected",
        r"Invalid credentials in Authorization header|Invalid user token|Invalid username or password"
        r"|User Access Token .* is expired|401 Client Error: Unauthorized"
        r"|403 Forbidden|403 Client Error",
        "the hub does not accept the token.",
        "Make a new one at https://huggingface.co/settings/tokens, set it as HF_TOKEN for the runner, then retry.",
    ),
    _rule(
        "model_missing",
        r"Repository Not Found for url: \S*?huggingface\.co/(?:api/models/)?(?P<model>[\w.-]+/[\w.-]*\w)",
        "the hub knows no model {model}, or it is private.",
        "Check the spelling; a private model needs HF_TOKEN set for the runner.",
    ),
    _rule(
        "model_missing",
        r"(?P<model>\S+) is not a local folder and is not a valid model identifier",
        "there is no model {model}.",
        "Check the spelling; the Train page lists the models of this machine.",
    ),
    _rule(
        "model_missing",
        r"RepositoryNotFoundError|Repository Not Found|RevisionNotFoundError|Revision Not Found",
        "the hub does not have this model, or not this revision of it.",
        "Check the spelling; a private model needs HF_TOKEN set for the runner.",
    ),
    _rule(
        "hub_busy",
        r"429 Client Error|429 Too Many Requests|Too Many Requests|\b50[0234] Server Error"
        r"|50[0234] (?:Internal|Bad G|Service U|Gateway T)",
        "the hub is busy, or limits how often it may be asked.",
        "Wait a while, then retry; with HF_TOKEN set for the runner the limits are higher.",
    ),
    _rule(
        "certificate_refused",
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed",
        "the hub's certificate was not accepted: a proxy on the way may have put its own in its place.",
        "Set SSL_CERT_FILE to the proxy's certificates for the runner, then retry.",
    ),
    _rule(
        "no_network",
        r"couldn't connect to 'https?://|Cannot reach https?://|offline mode is enabled|OfflineModeIsEnabled"
        r"|LocalEntryNotFoundError|Temporary failure in name resolution|Name or service not known|nodename nor servname"
        r"|Network is unreachable|No route to host|Max retries exceeded with url"
        r"|\b(?:httpx|httpcore|requests|urllib3)\S*\.\w*(?:Connect|Read|Write|Pool|Timeout|Proxy|Protocol)\w*"
        r"|Connection(?:Reset|Refused|Aborted)?Error|IncompleteRead|Consistency check failed: file should be of size",
        "the hub cannot be reached.",
        "Check the network and retry, or use a model that lies on this machine.",
    ),
)

CARD = (
    _rule(
        "gpu_lost",
        r"GPU is lost|GPU_IS_LOST|fallen off the bus|Unable to determine the device handle for GPU"
        r"|uncorrectable ECC error|CUDA error: unknown error"
        r"|Xid \([^)]*\): (?:48|61|62|63|64|74|79|92|94|95|119|120)\b",
        "the card is lost, or its hardware failed.",
        REBOOT,
    ),
    _rule(
        "driver_changed",
        r"Driver/library version mismatch|forward compatibility was attempted on non supported HW"
        r"|system has unsupported display driver / cuda driver combination",
        "the NVIDIA driver was updated while the machine ran: its parts do not fit together any more.",
        "Reboot the machine, then retry.",
    ),
    _rule(
        "driver_too_old",
        r"CUDA driver version is insufficient|NVIDIA driver on your system is too old"
        r"|PTX was compiled with an unsupported",
        "the NVIDIA driver is older than this PyTorch needs.",
        "An administrator must update the driver (`finetuner doctor` names the versions), then retry.",
    ),
    _rule(
        "no_gpu",
        r"Found no NVIDIA driver|No CUDA GPUs are available|no CUDA-capable device is detected|CUDA unknown error"
        r"|cannot find any torch accelerator",
        "no card can be seen.",
        "Check with `nvidia-smi` and `finetuner doctor` why; a container needs to be given the card. Then retry.",
    ),
    _rule(
        "gpu_busy",
        r"CUDA-capable device(?:s|\(s\)) (?:are|is/are) busy or unavailable|exclusive-process",
        "the card is held by another program, or is being reset.",
        "`finetuner doctor` names the program; end it or wait for it, then retry.",
    ),
    _rule(
        "gpu_unsupported",
        r"no kernel image is available|is not compatible with the current PyTorch installation"
        r"|Bfloat16 is only supported on GPUs",
        "this PyTorch was not built for a card of this kind.",
        "Install the PyTorch that fits the card (`make setup` picks it), then retry.",
    ),
    _rule(
        "device_assert",
        r"device-side assert triggered|Assertion `?(?:srcIndex|t >= 0|index)",
        "a check inside the card failed: mostly a token that the model does not have.",
        "Check that the model's folder has its own tokenizer and that the data was made for it.",
    ),
    _rule(
        "gpu_fault",
        r"unspecified launch failure|illegal memory access|illegal instruction was encountered|misaligned address"
        r"|launch timed out and was terminated|CUBLAS_STATUS_(?:EXECUTION_FAILED|INTERNAL_ERROR|NOT_INITIALIZED)"
        r"|CUDNN_STATUS_(?:EXECUTION_FAILED|INTERNAL_ERROR)|Xid \([^)]*\): \d+|NCCL error|unhandled cuda error"
        r"|CUDA error: (?:invalid|an|a|the)\b",
        "a program on the card broke off.",
        "Retry once; if it breaks off again, reboot the machine and look at the card's errors (`nvidia-smi -q`).",
    ),
)

FILES = (
    _rule(
        "model_damaged",
        r"Error while deserializing(?: header)?: |HeaderTooLarge|InvalidHeaderDeserialization|MetadataIncompleteBuffer"
        r"|file not fully covered",
        "a file of the model is damaged, or not all of it is there.",
        "Remove that copy of the model and fetch it again, then retry.",
    ),
    _rule(
        "version_mismatch",
        r"size mismatch for (?P<tensor>[\w.]+): copying a param with shape torch\.Size\((?P<old>[^)]*)\) "
        r"from checkpoint, the shape in current model is torch\.Size\((?P<new>[^)]*)\)",
        "what was saved does not fit the model any more: {tensor} was {old} and is now {new}.",
        ANEW,
    ),
    _rule(
        "version_mismatch",
        r"Error\(s\) in loading state_dict|Weights only load failed|Missing key\(s\) in state_dict"
        r"|loaded state dict (?:contains a parameter group|has a different number of parameter groups)",
        "what was saved was made by other versions of the libraries.",
        ANEW,
    ),
    _rule(
        "version_mismatch",
        r"has model type `(?P<kind>[\w-]+)` but Transformers does not recognize this architecture",
        "this version of transformers does not know models of the kind {kind}.",
        "Choose a model that it knows, or update the installation (`make setup`).",
    ),
    _rule(
        "version_mismatch",
        r"__init__\(\) got an unexpected keyword argument|cannot import name '\w+' from|No module named '"
        r"|undefined symbol: |GLIBCXX_\S+' not found|operator \S+ does not exist"
        r"|has no attribute '__version__'|Torch = .* too old",
        "the installed libraries do not fit together.",
        "Install the versions that belong together (`make setup`; `finetuner doctor` compares them), then retry.",
    ),
    _rule(
        "checkpoint_damaged",
        r"PytorchStreamReader failed|Ran out of input|failed finding central directory"
        r"|unexpected EOF, expected \d+ more bytes",
        "a checkpoint is damaged.",
        ANEW,
    ),
    _rule(
        "permission_denied",
        r"(?:\[Errno 13\]|\[Errno 1\]|os error 13)[^'\"]*(?:['\"](?P<path>[^'\"]+)['\"])",
        "{path} may not be read or written by the runner.",
        "Correct its permissions (`finetuner doctor` looks at those of the data home), then retry.",
    ),
    _rule(
        "permission_denied",
        r"Permission denied|Operation not permitted",
        "a file may not be read or written by the runner.",
        "Correct its permissions (`finetuner doctor` looks at those of the data home), then retry.",
    ),
    _rule(
        "too_many_open_files",
        r"Too many open files|\[Errno 24\]|\[Errno 23\]",
        "the process may not open more files.",
        "Raise the limit for the runner (LimitNOFILE= in its unit, or `ulimit -n`), then retry.",
    ),
    _rule(
        "no_compiler",
        r"Failed to find C compiler|No such file or directory: '(?:gcc|cc|clang|nvcc|ld)'",
        "the card's programs cannot be built here: there is no C compiler.",
        "Have gcc installed on the machine, then retry.",
    ),
    _rule(
        "file_missing",
        r"(?:\[Errno 2\]|os error 2\))[^'\"]*(?:['\"](?P<path>[^'\"]+)['\"])",
        "{path} is not there, or not any more.",
        "Put it back, or name another, then retry.",
    ),
    _rule(
        "diverged",
        r"(?i)\bloss is (?:nan|inf)\b|\bNaN or Inf found in input tensor"
        r"|probability tensor contains either `inf`, `nan`|Function '\w+' returned nan values|FloatingPointError",
        "the training diverged: numbers became infinite, or no numbers any more.",
        "Retry with a lower learning rate (a third of it).",
    ),
)

RULES: tuple[Rule, ...] = (*MEMORY, *DISK, *HUB, *CARD, *FILES)
"""The first that fits counts: the narrower ones stand first."""
