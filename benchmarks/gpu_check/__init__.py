"""Whether all of it is right and fast on a CUDA machine: `make gpu-check`."""
