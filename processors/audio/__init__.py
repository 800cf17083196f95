"""Processors that change audio: resampling, gain, noise suppression."""
