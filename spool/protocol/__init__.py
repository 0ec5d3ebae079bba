"""The public contract in code: job spec, states, the folder protocol, metrics, errors."""
