"""Waveforms as latents and codes, and back."""
