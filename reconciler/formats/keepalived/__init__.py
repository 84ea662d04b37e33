"""keepalived.conf, which is only read: text → lines (`reader`) → statements and blocks → virtual servers → services.

It means what it means to keepalived 2.3 (lib/parser.c, keepalived/check/ of its sources, and keepalived.conf(5)). What
cannot be known here (an undefined name, a line for another host) leaves out the virtual server that it belongs to.
"""
