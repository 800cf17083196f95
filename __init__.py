"""voxline: a streaming frame pipeline framework for voice bots."""
