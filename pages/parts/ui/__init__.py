"""Pieces of pages that draw with Streamlit."""
