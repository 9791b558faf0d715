"""`/api/v1/material`: the materials of this city (§8.1)."""

from loopd.api.idempotency import Write
from loopd.api.records import RecordNoun, RecordRoutes
from loopd.database import Database
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.vocabulary import MATERIAL_CATEGORIES
from loopd.registry.rules import MATERIAL_TYPE
from loopd.registry.service import Registry

MATERIAL = RecordNoun(SubjectKind.MATERIAL, MATERIAL_TYPE, "materials", MATERIAL_CATEGORIES)


class MaterialRoutes(RecordRoutes):
    """Register, list, read and announce materials."""

    def __init__(self, registry: Registry, database: Database, write: Write) -> None:
        super().__init__(MATERIAL, registry, database, write)
