"""What people see. Scripts lie in sub-folders only: see docs/design.md."""
