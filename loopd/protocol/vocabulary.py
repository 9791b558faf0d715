"""The closed word lists of LOOP v0.2.0: categories, units, features (§4.4, §4.5.6, §9.1)."""

MATERIAL_CATEGORIES: tuple[str, ...] = (
    "plastic-pet", "plastic-hdpe", "plastic-pvc", "plastic-ldpe", "plastic-pp", "plastic-ps", "plastic-mixed",
    "metal-steel", "metal-aluminum", "metal-copper", "metal-mixed",
    "organic-food", "organic-garden", "organic-wood",
    "glass-clear", "glass-brown", "glass-green", "glass-mixed",
    "paper-clean", "paper-newsprint", "cardboard", "paper-mixed",
    "textile-cotton", "textile-wool", "textile-synthetic", "textile-mixed",
    "ewaste-computers", "ewaste-phones", "ewaste-batteries", "ewaste-mixed",
)  # fmt: skip

PRODUCT_CATEGORIES: tuple[str, ...] = (
    "furniture-office", "furniture-residential", "furniture-industrial",
    "building-structural", "building-fixture", "building-hvac", "building-electrical",
    "electronics-computing", "electronics-mobile", "electronics-appliance", "electronics-components",
    "textile-garment", "textile-industrial",
    "packaging-reusable",
    "vehicle-parts",
    "equipment-industrial", "equipment-medical",
)  # fmt: skip

UNITS: tuple[str, ...] = ("kg", "g", "t", "l", "ml", "m3", "piece", "bundle")

PRODUCT_CONDITIONS: tuple[str, ...] = ("new", "like-new", "good", "fair", "poor", "for-parts")

# What NodeInfo may list; the word list is closed there.
NODE_CAPABILITIES: tuple[str, ...] = (
    "material-registry", "loopcoin", "loopsignal", "smart-contracts", "bulk-operations", "websocket", "graphql",
)  # fmt: skip

# The signal that stands for every category without one of its own.
DEFAULT_SIGNAL = "default"
SIGNAL_KEYS: frozenset[str] = frozenset(MATERIAL_CATEGORIES) | {DEFAULT_SIGNAL}


class Feature:
    """Words of the handshake's free capability list."""

    INTEROP = "interop-v0.2.0"
    # What nodes can do beyond the published contract; who names one of these speaks the full forms of a message.
    FLOOD = "gossip-flood"
    LINK = "gossip-link"
    PRODUCTS = "productdna"
    MIRROR = "mirror"
    SETTLEMENT = "settlement"
    KEY_ROTATION = "key-rotation"
    WANTED = "wanted"


LOOPD_FEATURES: frozenset[str] = frozenset(
    {
        Feature.FLOOD,
        Feature.LINK,
        Feature.PRODUCTS,
        Feature.MIRROR,
        Feature.SETTLEMENT,
        Feature.KEY_ROTATION,
        Feature.WANTED,
    }
)


def category_matches(category: str, pattern: str) -> bool:
    """Whether a category fits a search pattern: the code itself, or a prefix followed by one final `*`."""
    if pattern.endswith("*"):
        return category.startswith(pattern[:-1])
    return category == pattern
