"""How ranks share a model."""

from __future__ import annotations

from typing import Any

from ._settings import error, fields, follows


class Mapping:
    """The sizes of the parallel groups, and which rank this is; checked as the library does."""

    @follows("Mapping")
    def __init__(self, **given: Any) -> None:
        tp, pp, cp = given["tp_size"], given["pp_size"], given["cp_size"]
        if tp * pp * cp != given["world_size"]:
            raise ValueError(error("world", world=given["world_size"], tp=tp, pp=pp, cp=cp))
        if given["moe_cluster_size"] == -1:
            given["moe_cluster_size"] = 1
        if given["moe_tp_size"] == given["moe_ep_size"] == -1:
            given["moe_tp_size"], given["moe_ep_size"] = tp, 1
        elif given["moe_tp_size"] == -1:
            given["moe_tp_size"] = tp // given["moe_ep_size"]
        elif given["moe_ep_size"] == -1:
            given["moe_ep_size"] = tp // given["moe_tp_size"]
        moe = given["moe_tp_size"] * given["moe_ep_size"] * given["moe_cluster_size"]
        if moe != tp:
            raise ValueError(error("moe_world", got=moe, expected=tp))
        given["attn_tp_size"], given["attn_cp_size"] = tp * cp, 1
        given["cp_config"] = given["cp_config"] or {}
        if not 0 <= given["rank"] < given["world_size"]:
            raise ValueError(error("rank", last=given["world_size"] - 1, rank=given["rank"]))
        self.__dict__.update(given)

    def to_dict(self) -> dict[str, Any]:
        """Return what config.json holds, with the rank."""
        return {name: getattr(self, name) for name in ("rank", *fields.MAPPING)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Mapping:
        """Return the mapping of a config.json."""
        return cls(**values)

    def layers(self, count: int) -> list[int]:
        """Return which of `count` layers this rank has: the first ranks take the extra ones."""
        place = self.rank // (self.tp_size * self.cp_size)
        each, extra = divmod(count, self.pp_size)
        first = place * each + min(place, extra)
        return list(range(first, first + each + (place < extra)))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)
