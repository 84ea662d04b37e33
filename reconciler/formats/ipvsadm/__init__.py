"""ipvsadm's notation of services and servers, both ways: rules (`ipvsadm -S`, `ipvsadm -R`), commands and listings.

A rule means what it means to ipvsadm 1.31, defaults and rewritten ports included. Kinder than `ipvsadm -R`: comments
are allowed, options and lines may stand in any order, and every bad line is reported. Stricter: nothing is looked up
by name, and a line does only what it says (ipvsadm reads `10.1` as an address, and may drop a netmask in silence).
"""
