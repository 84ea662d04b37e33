"""ipvsadm's notation of services and servers, both ways: rules (`ipvsadm -S`, `ipvsadm -R`), commands and listings.

A rule means the same as to ipvsadm 1.31, including its defaults and rewritten ports. Unlike `ipvsadm -R`, reconciler
allows comments, and options and lines in any order, and reports every wrong line. It does not look up names, and what
ipvsadm silently changes is an error: ipvsadm reads `10.1` as an address, and may drop a netmask.
"""
