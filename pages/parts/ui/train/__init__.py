"""Pieces of the Train page that draw with Streamlit."""
