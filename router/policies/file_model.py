"""Define the base model of everything in a policy file (`StrictModel`), and the field types that its parts share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

#: Names of policies, profiles and candidates. They hold no colon, because `NAME:PROFILE` names a profile of a policy.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
#: A region tag such as `eu`, `eu-west-1` or `on-premises`. Two tags are the same if all their characters are.
Region = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
#: A name of a model as clients write it, such as `claude-haiku-*` or `gpt-4o-mini`, with at most three `*`.
Alias = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/@-]{0,200}(\*[A-Za-z0-9._:/@-]{0,200}){0,3}$", min_length=1)]
Probability = Annotated[float, Field(ge=0, le=1)]


class StrictModel(BaseModel):
    """The base of every part of a policy file: it is frozen and refuses unknown keys.

    It refuses keys that it does not know, and numbers that are not finite.
    """

    # Errors hide their input: people write keys where the name of the key's variable belongs, and errors end in logs.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)
