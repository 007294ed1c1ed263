"""The two ways medcnn stops on purpose. Each message says where, what came, what was expected, what to do."""


class InputError(ValueError):
    """The user can mend it: a config, an input file, an argument. The command line exits with code 2."""


class RunError(RuntimeError):
    """The work failed although the input was fine: a full disk, a lost device. Exit code 1."""


class Diverged(RunError):
    """A number of a network is not finite any more."""


class MissingExtra(InputError):
    """An optional package is absent; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package}, which is not installed: pip install 'medcnn[{extra}]'")
        self.missing = (package, extra, purpose)

    def __reduce__(self) -> tuple[type["MissingExtra"], tuple[str, str, str]]:
        return MissingExtra, self.missing  # so that it travels from a worker process
