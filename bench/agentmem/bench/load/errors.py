"""What a run is refused for."""


class LoadError(Exception):
    """The run cannot begin or go on; the text names the option or the host."""
