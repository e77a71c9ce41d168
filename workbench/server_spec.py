"""What tells a server that is measured in place of an engine: declared once, as a build spec is."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from workbench.endpoint import Endpoint
from workbench.errors import InputError
from workbench.spec import Declared, parameter, parameters_of


class ServerSpec(Declared):
    """A server that speaks OpenAI's protocol; without a `url` there is none."""

    url: str | None = parameter(
        None,
        min_length=1,
        help="A server in place of an engine: where its API begins, such as "
        "http://127.0.0.1:8000/v1.",
        group="Server",
        none_means="an engine is measured",
    )
    served_model: str | None = parameter(
        None,
        min_length=1,
        help="Name of the model there.",
        group="Server",
        none_means="the only one",
    )
    key_env: str | None = parameter(
        None,
        min_length=1,
        help="Environment variable that holds the key.",
        group="Server",
        none_means="no key",
    )
    tokenizer: str | None = parameter(
        None,
        min_length=1,
        help="Folder with the tokenizer.json of the model that is served, for prompts of exact "
        "lengths, and to count the tokens of a server that does not.",
        group="Server",
        none_means="prompts come from a file",
    )
    devices: int | None = parameter(
        None,
        ge=1,
        help="GPUs that the server runs on.",
        group="Server",
        none_means="those of the engine, where the workbench serves it, else 1",
    )
    device_name: str | None = parameter(
        None,
        min_length=1,
        help="What the server runs on, as other trials name it, such as NVIDIA H100 80GB HBM3: "
        "charts compare it with what ran on the same.",
        group="Server",
        none_means="that of the engine, where the workbench serves it, else unknown",
    )

    @model_validator(mode="after")
    def _belongs(self) -> Self:
        """Refuse what only a server has where there is none.

        Raises:
            ValueError: Something of it is given without a url.
        """
        names = [name for name in parameters_of(type(self)) if getattr(self, name) is not None]
        if names and self.url is None:
            raise ValueError(f"{', '.join(names)}: only a server has that. Give its url too.")
        return self

    @property
    def endpoint(self) -> Endpoint:
        """The server as an endpoint.

        Raises:
            InputError: There is no url, or it is none.
        """
        if self.url is None:
            raise InputError("No server is named. Give the url at which its API begins.")
        return Endpoint(self.url, model=self.served_model, key_env=self.key_env)
