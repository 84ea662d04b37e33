"""The JSON of `ip -j` of iproute2: links with their addresses, routes, rules and neighbours.

What the kernel makes and learns by itself is counted and not imported, and so is what a routing daemon or a DHCP client
keeps. Other properties of state, such as counters, are passed over.
"""
