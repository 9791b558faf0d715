"""Ed25519 keys and signatures, and the hop chain that bounds a flood. Pure: randomness is passed in."""
