"""A merged model's folder as an ONNX model with a KV cache: onnxruntime-genai's builder, in a process of its own.

Run as: python -m runner.exports.onnx_builder MODEL FOLDER      (runner/exports/onnx.py does)

The builder lays the graph out itself, layer by layer, so nothing is traced. Three things are put right for Gemma here;
where a newer builder does so itself, they change nothing.
"""

import os
import sys
from typing import Any

OPTIONS = (
    "shared_embeddings=true",  # Gemma's output is its embedding: stored once
    "windowed_kv_cache=false",  # one growing cache for all layers, which every onnxruntime can run
    "hf_token=false",
)


def build(model: str, folder: str) -> None:
    """model.onnx, model.onnx.data and genai_config.json."""
    import onnxruntime_genai.models.builder as builder

    _put_right(builder)
    options = builder.parse_extra_options(None, model, folder, "fp32", "cpu", folder, list(OPTIONS))
    builder.create_model(None, model, folder, "fp32", "cpu", folder, **options)


def _put_right(builder: Any) -> None:
    read, load = builder.AutoConfig.from_pretrained, builder.Model.load_weights

    class Config:
        """transformers 5 tells the rotary embedding of each kind of layer; the builder knows the names of before."""

        @staticmethod
        def from_pretrained(*of: Any, **how: Any) -> Any:
            config = read(*of, **how)
            text = config.get_text_config()
            rope = getattr(text, "rope_parameters", None) or {}
            if "full_attention" in rope and text.model_type.startswith("gemma3"):
                text.rope_local_base_freq = rope["sliding_attention"]["rope_theta"]
                text.rope_theta = rope["full_attention"]["rope_theta"]
                text.rope_parameters = rope["full_attention"]
            return config

    class Gemma3(builder.Gemma3Model):
        """Only layers that see everything stretch their positions (4B and larger); the local ones do not."""

        def make_rotary_embedding_caches_from_scratch(self) -> Any:
            if self.rope_attrs["theta"] == getattr(self, "rope_local_theta", None):
                self.rope_attrs["rescale_factors"] = 1
            return super().make_rotary_embedding_caches_from_scratch()

    def load_weights(self: Any, path: str) -> Any:
        """Gemma multiplies with 1 + the weight of a norm; the sum would be rounded to 16 bit."""
        model = load(self, path)
        for module in model.modules():
            if type(module).__name__.endswith("RMSNorm"):
                module.float()
        return model

    builder.AutoConfig, builder.Gemma3Model, builder.Model.load_weights = Config, Gemma3, load_weights


def main() -> int:
    os.environ.update({"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"})
    build(sys.argv[1], sys.argv[2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
