"""Names for models and methods: one line each, and the tables that users read."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from bnn_zoo.errors import bad_type, unknown_name

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Entry:
    """One line of a registry.

    ``where`` is a class, or where it is: ``"methods.mcmc.nuts.NUTS"`` is loaded when it is first asked for, so that
    importing the zoo does not wait for every method.
    """

    name: str
    where: type | str
    summary: str
    paper: str
    needs: str
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def make(self) -> type:
        """The class."""
        if isinstance(self.where, type):
            return self.where
        module, name = self.where.rsplit(".", 1)
        return getattr(import_module(f"bnn_zoo.{module}"), name)

    @property
    def class_name(self) -> str:
        """Name of the class, which need not be loaded for it."""
        return self.where.__name__ if isinstance(self.where, type) else self.where.rsplit(".", 1)[1]

    def made(self, value: Any) -> bool:
        """Whether ``value`` is of the class, which is loaded if it is."""
        return type(value).__name__ == self.class_name and type(value) is self.make

    def build(self) -> Any:
        """Return the object with its default settings."""
        return self.make(**dict(self.settings))


@dataclass(frozen=True)
class Registry:
    """Names of one kind of thing (``"model"`` or ``"method"``)."""

    kind: str
    entries: tuple[Entry, ...]

    @property
    def names(self) -> list[str]:
        """Registered names, in the order of the table."""
        return [entry.name for entry in self.entries]

    def look_up(self, value: Any) -> Any:
        """Turn a registered name into its object; leave an object alone; refuse a class.

        Raises
        ------
        ZooValueError
            If the name is unknown (the nearest known one is offered).
        ZooTypeError
            If ``value`` is a class.
        """
        if isinstance(value, str):
            for entry in self.entries:
                if entry.name == value:
                    return entry.build()
            raise unknown_name(self.kind, value, self.names)
        if isinstance(value, type):
            raise bad_type(self.kind, "an object, not a class", value.__name__, f"Call it: {value.__name__}().")
        return value

    def name_of(self, value: Any) -> str:
        """Registered name of an object, or its class's own name.

        Of several entries for one class, that whose settings the object has; the more settings, the nearer.
        """
        of_class = [entry for entry in self.entries if entry.made(value)]
        for entry in sorted(of_class, key=lambda entry: -len(entry.settings)):
            if all(getattr(value, name) == setting for name, setting in entry.settings):
                return entry.name
        return getattr(value, "__name__", type(value).__name__)

    def table(self) -> pd.DataFrame:
        """Return the registry as a pandas frame: name, class, one line, paper, needs."""
        import pandas as pd

        return pd.DataFrame(
            {
                "name": [e.name for e in self.entries],
                "class": [e.class_name for e in self.entries],
                "what": [e.summary for e in self.entries],
                "paper": [e.paper for e in self.entries],
                "needs": [e.needs for e in self.entries],
            }
        )
