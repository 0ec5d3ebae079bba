"""Training on rows that lie one behind the other, without padding, in steps that the card repeats by itself.

The rows of a batch become one long row; attention ends at each row's own start, so that rows never see each other
(batch.py, attention.py). The vocabulary is multiplied only where a token is learned, and its logits are never all there
(loss.py), and what stands around matrix products takes few kernels (lean.py). On a GPU forward and backward pass are
recorded as a CUDA graph for each of a few lengths and then replayed (step.py): a step of a small batch would else wait
for Python, which starts thousands of kernels one by one. Nothing is compiled, so that a job begins at once. What is
learned is the same as of padded rows; a GPU computes it in another order (tests/test_packed.py).

transformers' own model code and PEFT's LoRA do the rest; Unsloth is not imported here.
"""

ATTENTION = "packed"
"""The name of the attention function in transformers."""
