"""One camera in, frames and evidence out: the capture process."""
