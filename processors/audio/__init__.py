"""Audio processing: noise suppression, resampling, gain."""
