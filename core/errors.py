"""The errors of Assay, as a tree.

    AssayError                 says what happened, to which item, and what to do next
    ├── InputError             a file or a row that a user gave cannot be read
    ├── SettingsError          a setting, environment variable or form value is wrong
    ├── ModelError             a model cannot be loaded or does not fit
    ├── TeacherError           the teacher endpoint refused or failed
    │   └── BudgetReached      what the job may cost is spent
    ├── JobError               a job folder is damaged or an action does not fit its state
    └── StoreError             the store cannot be opened or a command was refused
        ├── StoreLockedError   another process holds the file
        └── StoreVersionError  the file was written by a newer version

Pages show ``str(error)`` as it is, so every message is a sentence for a person.
"""


class AssayError(Exception):
    """Base of all errors that are shown to a user as they are."""


class InputError(AssayError):
    """A file or a row that a user gave cannot be read."""


class SettingsError(AssayError):
    """A setting, an environment variable or a form value is wrong."""


class ModelError(AssayError):
    """A model cannot be found, loaded or run."""


class TeacherError(AssayError):
    """The teacher endpoint refused or failed."""


class BudgetReached(TeacherError):  # noqa: N818 - an end that was asked for, not a fault
    """What the job may cost is spent: it stops here, with all answers kept."""


class JobError(AssayError):
    """A job folder is damaged, or an action does not fit the job's state."""


class StoreError(AssayError):
    """The store cannot be opened, or a command was refused."""


class MissingError(StoreError):
    """What was asked for is not in the store, or not any more: asking again does not help."""


class NotAllowedError(StoreError):
    """The role of the person who acts does not allow it."""


class StoreLockedError(StoreError):
    """Another process holds the store."""


class StoreVersionError(StoreError):
    """The store was written by a newer version of Assay."""


def first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of tasks that ran together, however deep their groups are nested."""
    error = errors.exceptions[0]
    return first_of(error) if isinstance(error, BaseExceptionGroup) else error
