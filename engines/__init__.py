"""Models, export, build and runtimes. ``api`` is all that the streamer knows of them."""
