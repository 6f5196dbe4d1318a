"""Complete extensions, for contributors to copy: a denoiser, a file format, a coder."""
