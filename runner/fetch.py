"""Bringing a base model from the Hugging Face Hub into the cache, with errors that say what to do."""

from pathlib import Path

from spool.protocol.errors import ModelError

FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "LICENSE*", "README.md"]
"""Weights as safetensors only: pickled weights can run code when they are loaded."""

TOKENIZER_FILES = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
]
"""What `spool.data.chat.Encoder` reads: some ten megabytes, where the weights have gigabytes."""


def fetch(hub_id: str, files: list[str] = FILES) -> tuple[Path, str]:
    """(folder, commit) of a hub model, downloaded or from the cache. The token comes from HF_TOKEN.

    Args:
        files: patterns of what is fetched: FILES, or TOKENIZER_FILES.

    Raises:
        ModelError: model_gated, model_missing, no_network or no_safetensors.
    """
    import httpx
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        info = HfApi().model_info(hub_id)
        commit = str(info.sha)
        if not any(file.rfilename.endswith(".safetensors") for file in info.siblings or []):
            raise ModelError(f"{hub_id} has no safetensors weights.", "Choose another copy of it.", "no_safetensors")
        folder = Path(snapshot_download(hub_id, revision=commit, allow_patterns=files))
    except GatedRepoError:
        hint = f"Open https://huggingface.co/{hub_id}, accept its terms, and set HF_TOKEN for the runner."
        raise ModelError(f"{hub_id} is gated: its terms must be accepted first.", hint, "model_gated") from None
    except RepositoryNotFoundError:
        hint = "Check the spelling; a private model needs HF_TOKEN set for the runner."
        raise ModelError(f"the hub knows no model {hub_id!r}.", hint, "model_missing") from None
    except (httpx.TransportError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        if isinstance(error, HfHubHTTPError):
            raise ModelError(f"the hub answered: {str(error).splitlines()[0]}", "Retry later.", "hub_error") from None
        hint = "Check the network, or use a model under models/."
        raise ModelError(f"the hub cannot be reached to fetch {hub_id}.", hint, "no_network") from None
    return folder, commit
