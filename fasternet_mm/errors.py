"""The one error that is the user's to mend."""


class UserError(Exception):
    """What was given, what is accepted and what to do now, in one sentence; tools print it and exit with status 2."""
