"""From a form to a job spec and back: fields, presets, drafts."""
