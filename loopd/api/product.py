"""`/api/v1/product`: the products of this city (§8.1, §4.5)."""

from loopd.api.idempotency import Write
from loopd.api.records import RecordNoun, RecordRoutes
from loopd.database import Database
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.vocabulary import PRODUCT_CATEGORIES
from loopd.registry.rules import PRODUCT_TYPE
from loopd.registry.service import Registry

PRODUCT = RecordNoun(SubjectKind.PRODUCT, PRODUCT_TYPE, "products", PRODUCT_CATEGORIES)


class ProductRoutes(RecordRoutes):
    """Register, list, read and announce products."""

    def __init__(self, registry: Registry, database: Database, write: Write) -> None:
        super().__init__(PRODUCT, registry, database, write)
