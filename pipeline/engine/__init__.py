"""The engine: the kernel and its parts. Private; `voxline.pipeline` exports what users need."""
