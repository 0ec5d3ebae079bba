"""Pieces of System that draw with Streamlit."""
