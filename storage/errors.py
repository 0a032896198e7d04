"""The one exception whose text is meant for the person at the terminal."""


class UserError(Exception):
    """A mistake that the user can mend.

    Its text is one clear sentence that names the file, key or row and the mend. The command line prints it
    without a traceback and exits with code 2.
    """


class DamagedArtifact(UserError):
    """A stored file does not hold the bytes that its manifest recorded."""


class Busy(UserError):
    """Another process holds the lock of an artifact."""
