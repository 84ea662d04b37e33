"""`reconciler doctor`: what is wrong on this host, at the watcher, and on the way of each sandbox's packets.

Facts are read at the edge (`host`, `watching`, `opening`, `netpicture`, `firewall`), and changed by nobody. Checks
(`checks`) are pure functions over them, each in one registry.
"""
