"""The simulator: the engine that the daemon runs, under a virtual clock, on a network and disks that fail.

Real are the classes that decide: `gossip.flood.decide` and `route`, `Spread`, the frames and their bytes, set
reconciliation, back-off, announcements with their ids and hop chains. Modelled are the things around them: time, the
network, the disk, the tables of the database (dictionaries with its transactions), and signatures (a body is genuine
if its origin made it in this run). One seed draws topology, load and faults, and gives the same run byte for byte.
The checkers of `checks` know nothing of the engine.
"""
