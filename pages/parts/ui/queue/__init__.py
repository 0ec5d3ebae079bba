"""Pieces of Queue and Home that draw with Streamlit."""
