"""Chats and batches of prompts: turns, answers, corrections."""
