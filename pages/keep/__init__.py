"""Pages for what stays: trained models."""
