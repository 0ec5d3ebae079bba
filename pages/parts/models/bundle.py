"""Exports as downloads: an allow-list of file names in one zip. Nothing else of a run leaves through the browser."""

import io
import re
import threading
import zipfile
from collections import OrderedDict
from pathlib import Path

from spool.protocol import formats

ALLOWED = re.compile(
    r"adapter_model\.safetensors|adapter_config\.json"
    r"|model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json|config\.json"
    r"|tokenizer\.json|tokenizer\.model|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json"
    r"|[A-Za-z0-9][A-Za-z0-9_-]{0,119}\.gguf|Modelfile|model\.onnx(\.data)?|genai_config\.json"
    r"|chat_template\.jinja|generation_config\.json|README\.md|manifest\.json|certificate\.json|NOTICE"
    r"|GEMMA_TERMS\.html"
)
WEIGHTS = (".safetensors", ".gguf", ".data")
LARGEST_BYTES = 1_000_000_000
"""Streamlit keeps a download in the web process's memory: what is larger is fetched from the server by its path."""
KEPT_BYTES = 256_000_000
"""Of zips that were asked for lately: twenty people who take the same one along share it."""

_kept: OrderedDict[tuple[Path, str, int, int], bytes] = OrderedDict()
_looking = threading.Lock()
_making = threading.Lock()
"""One zip at a time: the memory stays bounded, and a second person's click finds the first one's zip."""


def files(folder: Path) -> list[Path]:
    """What of an export may be downloaded: plain files with known names, never what a link points to."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    return [path for path in entries if ALLOWED.fullmatch(path.name) and path.is_file() and not path.is_symlink()]


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in files(folder))


def zipped(folder: Path, inside: str) -> io.BytesIO:
    """The export as a zip, under one folder named `inside`. Weights are stored: they do not compress."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in files(folder):
            packed = zipfile.ZIP_STORED if path.suffix in WEIGHTS else zipfile.ZIP_DEFLATED
            archive.write(path, f"{inside}/{path.name}", packed)
    target.seek(0)
    return target


def packed(folder: Path, inside: str) -> bytes:
    """The same as `zipped`, made once for all who ask for it within a while. Safe to be called by many threads."""
    key = (folder, inside, folder.stat().st_mtime_ns, size(folder))
    with _looking:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    with _making:
        with _looking:
            if key in _kept:
                return _kept[key]
        data = zipped(folder, inside).getvalue()
    with _looking:
        if len(data) <= KEPT_BYTES:
            _kept[key] = data
        while sum(map(len, _kept.values())) > KEPT_BYTES:
            _kept.popitem(last=False)
    return data


def file_name(job_name: str, job_id: str, kind: str) -> str:
    """A name that every file system takes: `support-tickets-7Q2M-adapter.zip`."""
    return f"{formats.plain_name(job_name)}-{job_id[-4:]}-{formats.folder(kind)}.zip"
