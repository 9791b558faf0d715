"""The material and product registries (§3.2, §4)."""
