"""What pages are made of: pure functions for words, series and charts; `ui` holds what draws."""
