"""One file a command of ``vedette``."""
