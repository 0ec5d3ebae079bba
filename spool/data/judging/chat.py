"""What the model sees: the chat template and the tokenizer of one exact Gemma, and which tokens are trained on."""

import hashlib
import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

from spool.data.judging.examples import Example
from spool.data.reading.table import Problem
from spool.protocol.errors import ModelError

NOT_TRAINED = -100
BATCH_ROWS = 512


@dataclass(frozen=True)
class Generation:
    """What the generations of Gemma have of their own. Context lengths are the defaults of their configurations."""

    name: str
    template: str | None
    context_tokens: int
    turn_start: str = "<start_of_turn>"
    turn_end: str = "<end_of_turn>"


GEMMA_1 = Generation("gemma", "gemma.jinja", 8192)
GEMMA_2 = Generation("gemma2", "gemma.jinja", 8192)
GEMMA_3 = Generation("gemma3", "gemma3.jinja", 131_072)
GEMMA_3N = Generation("gemma3n", "gemma3.jinja", 32_768)
GEMMA_4 = Generation("gemma4", None, 131_072, "<|turn>", "<turn|>")
GENERATIONS = {
    "gemma": GEMMA_1,
    "gemma2": GEMMA_2,
    "gemma3": GEMMA_3,
    "gemma3_text": GEMMA_3,
    "gemma3n": GEMMA_3N,
    "gemma3n_text": GEMMA_3N,
    "gemma4": GEMMA_4,
    "gemma4_text": GEMMA_4,
    "gemma4_unified": GEMMA_4,
    "gemma4_unified_text": GEMMA_4,
}


@dataclass(slots=True)
class Encoded:
    """One row as the model gets it. `labels` are the ids where a token is trained on, else -100."""

    line: int
    input_ids: list[int]
    labels: list[int]
    text: str

    @property
    def trained_tokens(self) -> int:
        """Tokens that give a gradient. The first one has nothing before it to be predicted from."""
        return len(self.labels) - 1 - self.labels[1:].count(NOT_TRAINED) if self.labels else 0


class Encoder:
    """Renders and tokenises rows for one model folder. Loading the tokenizer takes about a second and 400 MB."""

    def __init__(
        self, tokenizer: Any, template: str, generation: Generation, context_length: int, identity: str = ""
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.generation = generation
        self.context_length = context_length
        self.identity = identity
        """What tokens depend on: a hash of the tokenizer's file and of the chat template in use."""
        self.bos_id = self._id("<bos>")
        self.eos_id = self._id("<eos>")
        self.pad_id = self._id("<pad>")
        self.turn_end_id = self._id(generation.turn_end)
        self.stop_ids = [self.eos_id, self.turn_end_id]
        self._compiled = _compiled(template)
        start, end = re.escape(generation.turn_start + "model\n"), re.escape(generation.turn_end)
        self._answers = re.compile(rf"{start}(.*?{end}\n?)", re.DOTALL)
        special = {n: token.content for n, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        self._joining = {*special, *(tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in range(256))}
        control = {generation.turn_start, generation.turn_end, *special.values()} - {"<unk>"}
        self._control = re.compile("|".join(map(re.escape, sorted(control))))
        self._opening = self._plain_ids(f"{generation.turn_start}model\n")
        self._newline = self._plain_ids("\n")
        self._folds_system = False
        self._probe()

    @classmethod
    def for_model(cls, folder: Path) -> "Encoder":
        """The encoder of a model folder.

        Raises:
            ModelError: the folder is no usable Gemma: no configuration, tokenizer or template, or another model.
        """
        from tokenizers import Tokenizer

        folder = Path(folder)
        config = _json_file(folder / "config.json")
        if not isinstance(config, dict):
            raise ModelError(f"{folder} has no config.json.", "Choose a folder with a Gemma in it.")
        generation = GENERATIONS.get(str(config.get("model_type")))
        if generation is None:
            kind = config.get("model_type") or "of an unknown kind"
            hint = f"Known here: {', '.join(GENERATIONS)}."
            raise ModelError(f"the model in {folder} is not a Gemma that can be trained ({kind}).", hint, "not_a_gemma")
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError(f"{folder} has no tokenizer.json.", "Fetch the model's tokenizer files as well.")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"{path} cannot be read: {str(error)[:200]}.", "Fetch the model again.") from None
        tokenizer.no_padding()
        tokenizer.no_truncation()
        length = {**config, **(config.get("text_config") or {})}.get("max_position_embeddings")
        template = _template(folder, generation)
        identity = hashlib.sha256(path.read_bytes() + template.encode()).hexdigest()
        return cls(tokenizer, template, generation, int(length or generation.context_tokens), identity)

    def encode(self, example: Example, train_on: str = "responses") -> Encoded | Problem:
        """One row, or why it cannot be encoded. `train_on` is "responses" or "all"; plain text trains on everything."""
        return next(self.encode_all([example], train_on))

    def encode_all(self, examples: Iterable[Example], train_on: str = "responses") -> Iterator[Encoded | Problem]:
        """Each row in order. A batch is tokenised on all cores while the one before it is labelled."""
        rows = iter(examples)
        with ThreadPoolExecutor(1) as tokenising:
            batch = self._started(rows, tokenising)
            while batch:
                following = self._started(rows, tokenising)
                encodings = iter(batch.encodings.result())
                for example, text in zip(batch.examples, batch.rendered, strict=True):
                    if isinstance(text, Problem):
                        yield text
                    else:
                        yield self._labelled(example, text, next(encodings), train_on)
                batch = following

    def _started(self, rows: Iterator[Example], tokenising: ThreadPoolExecutor) -> "_Batch | None":
        """The next rows, rendered, with their tokens on the way (the library lets other threads run meanwhile)."""
        batch = list(islice(rows, BATCH_ROWS))
        if not batch:
            return None
        rendered = [self._rendered(example) for example in batch]
        texts = [text for text in rendered if isinstance(text, str)]
        tokens = tokenising.submit(self.tokenizer.encode_batch_fast, texts, add_special_tokens=False)
        return _Batch(batch, rendered, tokens)

    def generation_text(self, messages: list[dict[str, Any]]) -> str:
        """The conversation so far, opened for the model's answer."""
        return self._render(messages, generation=True)

    def generation_ids(self, messages: list[dict[str, Any]]) -> list[int]:
        """The same as tokens."""
        ids = self.tokenizer.encode(self.generation_text(messages), add_special_tokens=False).ids
        return ids if ids[:1] == [self.bos_id] else [self.bos_id, *ids]

    def text_ids(self, text: str) -> list[int]:
        """Plain text as tokens, to be gone on with."""
        return [self.bos_id, *self._plain_ids(text)]

    def question(self, ids: Sequence[int], labels: Sequence[int]) -> tuple[int, list[dict[str, Any]] | None] | None:
        """(where the last answer of a tokenised row begins, the messages before it); of plain text a third at most is
        told, and there are no messages. None where nothing is before it, or nothing after."""
        conversation = self.conversation(ids)
        if conversation is None:
            cut = min(32, max(2, len(ids) // 3))
        else:
            cut = len(labels)
            while cut > 1 and labels[cut - 1] != NOT_TRAINED:
                cut -= 1
            if cut == 1:  # trained on all of it
                cut = len(self.generation_ids(conversation[0]))
        return (cut, conversation[0] if conversation else None) if 1 <= cut < len(ids) else None

    def conversation(self, ids: Sequence[int]) -> tuple[list[dict[str, Any]], str] | None:
        """The messages up to the last answer of a tokenised row, and that answer; None for what is no conversation.

        A system turn that the template has folded into the first question stays there.
        """
        text = str(self.tokenizer.decode(list(ids), skip_special_tokens=False))
        start, end = re.escape(self.generation.turn_start), re.escape(self.generation.turn_end)
        turns = re.findall(rf"{start}(\w+)\n(.*?)(?:{end}|$)", text, re.DOTALL)
        messages = [{"role": "assistant" if role == "model" else role, "content": said} for role, said in turns]
        if len(messages) < 2 or messages[-1]["role"] != "assistant" or messages[-2]["role"] != "user":
            return None
        return messages[:-1], messages[-1]["content"]

    def control_token(self, text: str) -> str | None:
        """A token of the model's own that stands in a text, where it would end a turn or begin another."""
        found = self._control.search(text) if "<" in text else None
        return found.group() if found else None

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, without special ones."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def settled(self, ids: Sequence[int]) -> str:
        """The text of the first tokens of an answer, as far as no later token changes it.

        Single bytes at the end are left off: the next token may make a character of them, or show that they are none.
        """
        end = len(ids)
        while end and ids[end - 1] in self._joining:
            end -= 1
        return self.decode(ids[:end])

    def _id(self, token: str) -> int:
        number = self.tokenizer.token_to_id(token)
        if number is None:
            raise ModelError(f"the model's tokenizer has no token {token}.", "Fetch the model again.", "bad_tokenizer")
        return int(number)

    def _plain_ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _probe(self) -> None:
        """Finds out how the template treats system turns, and refuses one whose turns cannot be told apart."""
        turns = [{"role": "user", "content": "probe-u"}, {"role": "assistant", "content": "probe-a"}]
        try:
            text = self._render([{"role": "system", "content": "probe-s"}, *turns])
            self._folds_system = "probe-s" not in text
        except Exception:
            self._folds_system = True
        try:
            found = self._answers.findall(self._render(turns * 2))
        except Exception as error:
            message = f"the model's chat template cannot be used: {str(error)[:200]}."
            raise ModelError(message, "Remove its chat_template to use Gemma's own.", "bad_template") from None
        if len(found) != 2 or not all("probe-a" in answer for answer in found):
            message = f"the model's chat template does not mark answers with {self.generation.turn_start}model."
            raise ModelError(message, "Remove its chat_template to use Gemma's own.", "bad_template")

    def _rendered(self, example: Example) -> str | Problem:
        """The text of a row, or why there is none.

        A chat ends with a trained <eos> too, as TRL's own preparation has it: the tuned model then stops by itself also
        where somebody's generation code knows no <end_of_turn>.
        """
        said = [message["content"] for message in example.messages or []] + ([example.text] if example.text else [])
        for text in said:
            if marker := self.control_token(text):
                message = f"the row holds the model's control token {marker}."
                return Problem(example.line, "special_token_in_text", message)
        if example.messages is None:
            return f"<bos>{example.text}<eos>"
        try:
            return self._render(example.messages).removesuffix("<eos>") + "<eos>"
        except Exception as error:  # whatever a model's own template raises
            return Problem(example.line, "bad_roles", f"the model's chat template refuses the row: {str(error)[:200]}.")

    def _render(self, messages: list[dict[str, Any]], generation: bool = False) -> str:
        if self._folds_system and messages[0]["role"] == "system" and len(messages) > 1:
            first = f"{messages[0]['content'].strip()}\n\n{messages[1]['content'].strip()}"
            messages = [{**messages[1], "content": first}, *messages[2:]]
        plain = [{"role": message["role"], "content": message["content"]} for message in messages]
        return str(
            self._compiled.render(
                messages=plain,
                add_generation_prompt=generation,
                bos_token="<bos>",
                eos_token="<eos>",
                pad_token="<pad>",
                unk_token="<unk>",
            )
        )

    def _labelled(self, example: Example, text: str, encoding: Any, train_on: str) -> Encoded | Problem:
        ids: list[int] = encoding.ids
        shift = int(ids[:1] != [self.bos_id])
        if shift:
            ids = [self.bos_id, *ids]
        if example.messages is None or train_on == "all":
            return Encoded(example.line, ids, list(ids), text)
        labels = [NOT_TRAINED] * len(ids)
        weights = [message.get("weight", 1) for message in example.messages if message["role"] == "assistant"]
        spans = self._spans(ids)
        if len(spans) != len(weights):
            spans = [(first + shift, last + shift) for first, last in self._spans_by_text(text)]
        if len(spans) != len(weights):
            message = "the chat template does not show every answer as a turn of its own."
            return Problem(example.line, "bad_roles", message)
        spans[-1] = (spans[-1][0], len(ids))
        for weight, (first, last) in zip(weights, spans, strict=True):
            if weight:
                labels[first:last] = ids[first:last]
        return Encoded(example.line, ids, labels, text)

    def _spans(self, ids: list[int]) -> list[tuple[int, int]]:
        """The tokens of each answer, found by the turns' own tokens. None is found where a template opens an answer
        in another way; `_spans_by_text` finds it then."""
        spans = []
        opening, closing, newline = self._opening, self.turn_end_id, self._newline
        place, size = 0, len(opening)
        try:
            while True:
                place = ids.index(opening[0], place)
                if ids[place : place + size] == opening:
                    end = ids.index(closing, place + size) + 1
                    end += ids[end : end + 1] == newline
                    spans.append((place + size, end))
                    place = end
                else:
                    place += 1
        except ValueError:
            return spans

    def _spans_by_text(self, text: str) -> list[tuple[int, int]]:
        """The same by the places of the answers in the text, which costs the tokenizer half as much again."""
        starts = [start for start, _ in self.tokenizer.encode(text, add_special_tokens=False).offsets]
        answers = [match.span(1) for match in self._answers.finditer(text)]
        return [(bisect_left(starts, start), bisect_left(starts, end)) for start, end in answers]


@dataclass
class _Batch:
    """Rows on their way through the tokenizer."""

    examples: list[Example]
    rendered: list[str | Problem]
    encodings: Future[list[Any]]


def _template(folder: Path, generation: Generation) -> str:
    """The model's own chat template, else the one of its generation."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    for name in ("tokenizer_config.json", "chat_template.json"):
        document = _json_file(folder / name)
        own = document.get("chat_template") if isinstance(document, dict) else None
        if isinstance(own, list):
            named = {each.get("name"): each.get("template") for each in own if isinstance(each, dict)}
            own = named.get("default")
        if isinstance(own, str):
            return own
    if generation.template is None:
        message = f"the model in {folder} brings no chat template, and there is none for {generation.name} here."
        raise ModelError(message, "Use the instruction-tuned variant, or add its chat_template.jinja.", "no_template")
    return resources.files("spool.data").joinpath("templates", generation.template).read_text(encoding="utf-8")


def _json_file(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}.", "Fetch the model again.") from None


def _compiled(template: str) -> Any:
    """The template as transformers compiles it; sandboxed, for a model's folder may come from anybody."""
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, **more: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, **more)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(template)
    except TemplateError as error:
        message = f"the model's chat template cannot be used: {error}."
        raise ModelError(message, "Remove its chat_template to use Gemma's own.", "bad_template") from None
