"""What the Train page says of models of the catalogue: one line in the list, a few about the chosen one. Pure."""

from pages.parts import quantities
from pages.parts.texts import t
from spool.forecast import needs
from spool.protocol.catalogue import Published


def label(model: Published, on_gpu: bool) -> str:
    """Name, size on the disk and memory (of the card, in 4 bit, where there is one), for the list."""
    count, memory = needs.parameters(model), needs.of(model)
    said = [model.name]
    if count:
        said.append(quantities.size(2 * count))
    if memory:
        said.append(t("train.published.needs", memory=quantities.size(memory.gpu_4bit if on_gpu else memory.cpu)))
    return " · ".join(said)


def about(model: Published, fetched: bool, on_gpu: bool) -> list[str]:
    """Sentences in Markdown; what is put into them are the catalogue's own words."""
    count, memory = needs.parameters(model), needs.of(model)
    context = quantities.count(model.context_tokens)
    variant = t(f"train.published.{model.variant}")
    licence = f"[{model.licence}]({model.licence_url})"
    said = [t("train.published.is", family=model.family, variant=variant, context=context, licence=licence)]
    where = "here" if fetched else "away"
    size = quantities.size(2 * count if count else None)
    said.append(t(f"train.published.{where}", repository=model.repository, size=size))
    if memory:
        four, eight, sixteen = map(quantities.size, (memory.gpu_4bit, memory.gpu_8bit, memory.gpu_16bit))
        cpu, kind = quantities.size(memory.cpu), "gpu" if on_gpu else "cpu"
        said.append(t(f"train.published.memory_{kind}", four=four, eight=eight, sixteen=sixteen, cpu=cpu))
    if model.reads:
        said.append(t("train.published.text_only"))
    said.append(t(f"train.published.tested_{model.tested or 'not'}"))
    return said
