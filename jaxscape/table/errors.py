"""What is raised where a table or a setting cannot be used."""


class DataError(ValueError):
    """The data cannot be used as they are; the message says what, where, and what to do."""
