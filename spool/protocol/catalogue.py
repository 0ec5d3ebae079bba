"""The published Gemma models by name: where each lies on the hub, its licence and context, and how far it was tried."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Published:
    """One model of `models.toml`. As a spec's `model` its name stands for `repository`, unless a folder under models/
    has that name: always the same one, so that a name means the same files for everybody."""

    name: str
    family: str
    size: str
    variant: str
    """base, or instruct: trained to follow instructions."""
    hub_id: str
    """Google's own."""
    gated: bool
    """Whether Google's terms must be accepted with an account before `hub_id` can be fetched."""
    mirror: str | None
    """The same weights under an id that asks for no account."""
    generation: str
    """Whose chat template it has: spool/data/judging/chat.py."""
    context_tokens: int
    licence: str
    licence_url: str
    reads: tuple[str, ...]
    """What it takes beside text. Here text alone is trained."""
    parameters: int | None
    """Given only where the forecast does not know the model's dimensions."""
    tested: str
    """trained, measured, or nothing: how far this size was tried."""
    how: str

    @property
    def repository(self) -> str:
        """What is fetched for its name: Google's own where anybody may have it, else the copy."""
        return self.mirror if self.gated and self.mirror else self.hub_id


def find(name: str) -> Published | None:
    """The model of a name, however it is capitalised."""
    return _by_name().get(name.casefold())


def of_hub(hub_id: str) -> Published | None:
    """The model that an id on the hub is, Google's or the copy's."""
    found = find(hub_id.rpartition("/")[2])
    return found if found and hub_id.casefold() in (found.hub_id.casefold(), (found.mirror or "").casefold()) else None


@cache
def published() -> tuple[Published, ...]:
    """All of them, by generation and size, the base before the one that follows instructions."""
    document = tomllib.loads(Path(__file__).with_name("models.toml").read_text("utf-8"))
    found = []
    for size in document["size"]:
        family = document["family"][size["family"]]
        licence = document["licence"][family["licence"]]
        mirror = size.get("mirror", family["mirror"])
        for variant in ("base", "instruct"):
            if name := size.get(variant):
                found.append(
                    Published(
                        name,
                        family["name"],
                        size["size"],
                        variant,
                        f"google/{name}",
                        family["gated"],
                        f"{mirror}/{name}" if mirror else None,
                        family["generation"],
                        size["context_tokens"],
                        licence["name"],
                        licence["url"],
                        tuple(size.get("reads", ())),
                        size.get("parameters"),
                        size.get("tested", ""),
                        size.get("how", ""),
                    )
                )
    return tuple(found)


@cache
def _by_name() -> dict[str, Published]:
    return {each.name.casefold(): each for each in published()}
