"""The `finetuner` command: one file per verb."""
