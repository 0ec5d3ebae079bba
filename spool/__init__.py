"""What the pages and the runner share: pure Python, no torch, no streamlit."""
