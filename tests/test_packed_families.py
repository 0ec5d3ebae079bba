"""Packed rows of every Gemma learn what each row learns alone, and nothing is asked of the CPU on the way."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from test_packed import LENGTHS, ROWS, TRAINED, gradients, learned_alone
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from trainer_process import TrainerProcess
from transformers import AttentionInterface, AutoModelForCausalLM

from bench import random_gemma
from runner import train
from runner.bases import Base
from runner.exports import merge
from runner.packed import ATTENTION, attention  # noqa: F401
from runner.packed.batch import Rows, pack
from runner.packed.engine import nf4, targets
from runner.packed.lean import make_lean
from runner.packed.step import Step
from spool.forecast import costs, shapes
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.training import LINEAR_LAYERS


def adapted(kind: str, attend: str) -> Any:
    named = {"experts_implementation": "eager"} if "experts" in kind and attend != ATTENTION else {}
    base = tiny.family(kind, attn_implementation=attend, **named)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=targets(base, "all-linear")))
    torch.manual_seed(1)
    for name, each in model.named_parameters():
        if "lora_" in name:
            each.data.normal_(std=0.05)
    return model


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def alone(request: pytest.FixtureRequest) -> tuple[str, list[float], dict[str, Tensor]]:
    """(family, summed loss of each row, gradients of the mean over all tokens): each row by itself, by transformers.
    Its SDPA knows no soft caps, and its eager attention is less exact."""
    return request.param, *learned_alone(adapted(request.param, "eager" if request.param == "gemma2" else "sdpa"))


def test_a_batch_of_any_gemma_learns_what_its_rows_learn_alone(
    alone: tuple[str, list[float], dict[str, Tensor]],
) -> None:
    kind, losses, expected = alone
    for recomputed in (False, True):
        model = adapted(kind, ATTENTION)
        step = Step(model, len(ROWS), max(LENGTHS), 10_000, 0)
        if recomputed:
            step.recompute()
        loss = step.learn(Rows(ROWS), TRAINED)
        assert loss.item() == pytest.approx(sum(losses) / TRAINED, rel=1e-5)
        found = gradients(model)
        assert found.keys() == expected.keys()
        for name, gradient in found.items():
            assert (gradient - expected[name]).norm() <= 1e-5 * expected[name].norm(), name
    some = Rows([ROWS[i] for i in (4, 0, 1)])
    assert step.loss(some).item() * some.trained_tokens == pytest.approx(sum(losses[i] for i in (4, 0, 1)), rel=1e-5)


@pytest.mark.parametrize("kind", tiny.FAMILIES)
def test_a_base_of_any_gemma_in_4_bit_learns_what_its_rows_learn_alone(kind: str, tmp_path: Path) -> None:
    """Beside transformers and PEFT with the same base, whose attention is packed as well."""
    folder, losses, found = tiny.build(tmp_path / kind, kind), [], []
    for lean in (False, True):
        base = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation=ATTENTION, quantization_config=nf4(torch.float32)
        )
        torch.manual_seed(1)
        model = get_peft_model(base, LoraConfig(r=4, target_modules=targets(base, "all-linear"))).train()
        for name, each in model.named_parameters():
            if "lora_" in name:
                each.data.normal_(std=0.05)
        if not lean:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("runner.packed.step.make_lean", lambda model: None)
                step = Step(model, len(ROWS), max(LENGTHS), 10_000, 0)
        else:
            step = Step(model, len(ROWS), max(LENGTHS), 10_000, 0)
            step.recompute()
        losses.append(step.learn(Rows(ROWS), TRAINED).item())
        found.append(step.gradients)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert (found[1] - found[0]).norm() <= 1e-4 * found[0].norm()


def test_beside_experts_an_adapter_merges(tmp_path: Path) -> None:
    """To the last number what PEFT merges: rounding alone would send some tokens to another expert."""
    base = tiny.build(tmp_path / "base", "gemma4_experts")
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(plain, LoraConfig(r=4, target_modules=targets(plain, "all-linear"), init_lora_weights=False))
    model.save_pretrained(str(tmp_path / "adapter"))
    merge.merge(base, tmp_path / "adapter", tmp_path / "merged", lambda: None)
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).state_dict()
    expected = model.merge_and_unload().state_dict()
    assert found.keys() == expected.keys()
    for name, each in expected.items():
        torch.testing.assert_close(found[name], each, rtol=2**-8, atol=0)


@pytest.mark.parametrize("kind", tiny.FAMILIES)
def test_every_layer_of_the_language_gets_an_adapter_and_no_tower(kind: str) -> None:
    model = adapted(kind, "eager")
    layers = model.get_base_model().get_decoder().layers
    per_layer = [sum(name.endswith("lora_A") for name, _ in layer.named_modules()) for layer in layers]
    assert all(count in (5, 6, 7) for count in per_layer), "7, less keys and values that are another's"
    everywhere = sum(name.endswith("lora_A") for name, _ in model.named_modules())
    assert everywhere == sum(per_layer)


@pytest.mark.parametrize("kind", ["gemma3_text", "gemma3"])
def test_a_layer_that_is_not_there_is_told_and_not_passed_over(kind: str, tmp_path: Path) -> None:
    """PEFT does so where another name is there. The output layer is multiplied where a token is learned alone."""
    base = AutoModelForCausalLM.from_pretrained(tiny.build(tmp_path / kind, kind))
    for names in (["q_proj", "v_porj"], ["q_proj", "lm_head"], ["q_proj", "embed_tokens"]):
        with pytest.raises(FinetunerError, match=f"language model is called {names[1]}.$"):
            targets(base, names)
    model = get_peft_model(base, LoraConfig(target_modules=targets(base, ["q_proj", "layers.0.mlp.up_proj"])))
    assert sum(name.endswith("lora_A") for name, _ in model.named_modules()) == 3


@pytest.mark.parametrize("name", shapes.catalogue()["shape"])
def test_a_shape_counts_the_weights_that_transformers_builds(name: str) -> None:
    """Of E2B, whose layers are of two widths, and of 31B, some of whose heads are wider, a few in a hundred more or
    less. What bench/random_gemma.py knows beside the shapes is true where these are."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(random_gemma.configuration(name))
    text, shape = model.get_decoder(), shapes.named(name)
    assert shape is not None
    linear = [each.weight.numel() for at, each in text.layers.named_modules() if at.endswith(tuple(LINEAR_LAYERS))]
    assert sum(linear) == pytest.approx(shape.linear_parameters, rel=0.06)
    in_text = sum(each.numel() for each in text.parameters())
    towers = {"gemma3": 420_000_000, "gemma3n": 1_010_000_000, "gemma4": 540_000_000}.get(shape.kind, 0)
    assert in_text * 0.999 < shape.parameters < in_text * 1.001 + towers


def test_what_experts_keep_of_a_token_is_what_the_forecast_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 26B-A4B's widths, beside the same layers without them, on tensors that have shapes only."""

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **_: Any) -> tuple[Tensor, None]:
        return (query + key.sum() + value.sum()).transpose(1, 2), None

    monkeypatch.setitem(AttentionInterface._global_mapping, ATTENTION, attend)
    shape, tokens, kept = shapes.named("gemma-4-26b"), torch.zeros(1, 64, dtype=torch.long, device="meta"), []
    assert shape is not None
    for experts in (True, False):
        config = random_gemma.configuration("gemma-4-26b", 7)
        config.text_config.enable_moe_block = experts
        with torch.device("meta"):
            base = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation=ATTENTION)
        model = get_peft_model(base, LoraConfig(r=4, target_modules=targets(base, "all-linear")))
        make_lean(model)
        weights = {each.untyped_storage()._cdata for each in model.parameters()}
        found: dict[int, Tensor] = {}

        def note(tensor: Tensor, found: dict[int, Tensor] = found) -> Tensor:
            found[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            model.get_base_model().get_decoder()(input_ids=tokens, position_ids=tokens, use_cache=False)
        kept.append(sum(each.untyped_storage().nbytes() for at, each in found.items() if at not in weights))
    counted = (costs.packed_token_bytes(each) for each in (shape, replace(shape, experts=0, experts_at_once=0)))
    of_layers = (kept[0] - kept[1]) / 64 * shape.layers / 7
    assert of_layers == pytest.approx(next(counted) - next(counted) - costs.working_bytes(shape), rel=0.02)


class Asked(TorchDispatchMode):
    """Notes what crosses from the CPU to the card; what would come back fails by itself, as the card is no device."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        tensors = [each for each in (*args, *(kwargs or {}).values()) if isinstance(each, Tensor)]
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            places = {each.device.type for each in [*tensors, made]}
            if len(places) > 1:
                self.copies.append(str(func))
        return made


@pytest.mark.parametrize("kind", tiny.FAMILIES)
def test_the_card_needs_nothing_of_the_cpu(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA graph records kernels alone: neither copies nor questions. "meta" is a card that knows shapes only; what
    attention does on a GPU, bench/gpu_packed.py tries."""

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **_: Any) -> tuple[Tensor, None]:
        assert mask is None
        return (query + key.sum() + value.sum()).transpose(1, 2), None

    monkeypatch.setitem(AttentionInterface._global_mapping, ATTENTION, attend)
    model = adapted(kind, ATTENTION).to("meta", torch.bfloat16).train()  # in which alone experts are multiplied there
    make_lean(model)
    packed = pack(Rows(ROWS)).to("meta")
    with Asked() as asked:
        out = model.get_base_model().get_decoder()(
            input_ids=packed.input_ids,
            position_ids=packed.position_ids,
            use_cache=False,
            starts=packed.starts,
            longest=max(LENGTHS),
        )
        torch.autograd.grad(out.last_hidden_state.sum(), [p for p in model.parameters() if p.requires_grad])
    assert asked.copies == []


@pytest.mark.parametrize(
    ("name", "capability", "records"),
    [("gemma-4-26b", 9, True), ("gemma-4-26b", 8, False), ("gemma-4-26b", 12, False), ("gemma-4-31b", 8, True)],
)
def test_steps_are_recorded_where_the_card_is_asked_nothing(
    tmp_path: Path, name: str, capability: int, records: bool
) -> None:
    """Of experts it is asked everywhere but on Hopper and the Blackwell of servers."""
    card = {"is_available": lambda: True, "get_device_capability": lambda: (capability, 0)}
    cuda: Any = SimpleNamespace(cuda=SimpleNamespace(**card, mem_get_info=lambda: (84_000_000_000, 85_000_000_000)))
    base, attempt = Base(name, tmp_path, None, 0, 0), SimpleNamespace(home=Home(tmp_path))
    room = train._room(attempt, base, cuda)  # type: ignore[arg-type]
    assert room.packs
    assert (room.recorded_tokens > 0) == records


@pytest.mark.training
def test_a_gemma_that_sees_learns_by_its_language_and_merges(tmp_path: Path) -> None:
    """Through the recipe: PEFT loads the adapter on the whole model, and that answers like what it is merged into."""
    base = tiny.build(tmp_path / "base", "gemma3")
    process = TrainerProcess(Home(tmp_path / "home").create(), base)
    settings = {"max_steps": 4, "effective_batch": 4, "packing": True, "learning_rate": 0.01}
    prompts = {"sample_prompts": ["Where is my order?"], "every_steps": 2}
    job_id = process.job(train=settings, eval=prompts, limits={"min_free_gb": 0})
    answer = process.attempt(job_id)
    notes, adapter = process.notes(job_id), process.home.run(job_id).exports / "adapter"
    process.end()
    assert answer["outcome"] == "finished", answer
    assert notes == []
    with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
        names = list(file.keys())
    assert len(names) == 2 * 2 * 7
    assert all(".model.language_model.layers." in name for name in names)
    merged = tmp_path / "merged"
    merge.merge(base, adapter, merged, lambda: None)
    ids = torch.tensor([ROWS[1]["input_ids"]])
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(adapter))
    again = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    assert type(again) is type(plain.get_base_model())
    with torch.no_grad():
        learned, found = plain(input_ids=ids).logits, again(input_ids=ids).logits
        with plain.disable_adapter():
            before = plain(input_ids=ids).logits
    assert (found - learned).norm() < 0.02 * learned.norm() < 0.2 * (before - learned).norm()
